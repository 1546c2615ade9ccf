// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/loop"
	"github.com/whittle-sec/whittle/internal/oracle"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/testbed/load"
	"github.com/whittle-sec/whittle/testbed/twins"
)

const port = 18080

// trial of one service.
type trial struct {
	options
	twin twins.Twin
	bed  *bed

	workload string // ID
	started  time.Time
	answered time.Duration // from the first start until the first answer
	// From the first start until no loop was needed any more.
	converged time.Duration
	loops     []api.LoopRecord
	clients   load.Stats
	rare      load.Stats
	policy    policy.Policy
	attacks   []attack
	compared  map[string][]float64 // requests a second
}

// attack by one exploit.
type attack struct {
	name     string
	shell    bool
	tries    int
	verdict  loop.Verdict
	report   string
	back     time.Duration // from the attack until production served again
	learned  bool          // execve is in the policy: it must not be
	requests load.Stats    // of others meanwhile
}

func (t *trial) addr() load.Target { return t.twin.Target(port) }

// ask is four clients with a new connection for each request.
func (t *trial) ask(ctx context.Context) *load.Running {
	return load.Start(ctx, t.addr(), t.twin.Talk(), load.Load{Workers: 4, PerConnection: 1, Pause: 5 * time.Millisecond})
}

// askRarely is a client that now and then asks for all that the service can do; some of it needs other system calls.
func (t *trial) askRarely(ctx context.Context) *load.Running {
	all := t.twin.Honest()
	talk := func(conn net.Conn, r *bufio.Reader, n int) error { return all[n%len(all)](conn, r, n) }
	return load.Start(ctx, t.addr(), talk, load.Load{PerConnection: 1, Pause: time.Second})
}

// container of the service, not started.
func (t *trial) create(ctx context.Context, name string, image twins.Image, hooked bool) error {
	// An exploit that fails has broken its process: the engine starts the service again.
	args := append([]string{"create", "--name", name, "--restart", "always", "--network", "host", image.Name}, t.twin.Command(port)...)
	if !hooked {
		var err error
		if args, err = t.bed.unhooked(args...); err != nil {
			return err
		}
	}
	_, err := t.bed.env.Run(ctx, args...)
	return err
}

// prepare a container that was never started, and name its oracle.
func (t *trial) prepare(ctx context.Context) error {
	if err := t.twin.Load(ctx, t.bed.env); err != nil {
		return err
	}
	if err := t.create(ctx, t.twin.Name, t.twin.Production, true); err != nil {
		return err
	}
	spec := oracle.Spec{Kind: oracle.Kind(t.twin.Kind)}
	if t.twin.Oracle.Name != t.twin.Production.Name {
		spec.Image = t.twin.Oracle.Name
	}
	state, err := t.bed.client.SetOracle(ctx, api.OracleRequest{Workload: t.twin.Name, Spec: spec, Start: true, Why: "evaluation"})
	if err != nil {
		return fmt.Errorf("set the oracle: %w", err)
	}
	t.workload = state.Workload
	return nil
}

// converge from an empty policy, under load from the first answer on.
func (t *trial) converge(ctx context.Context) error {
	t.started = time.Now()
	if _, err := t.bed.env.Run(ctx, "start", t.twin.Name); err != nil {
		return err
	}
	if err := until(ctx, 2*time.Minute, "a first answer", func() bool { return t.addr().Ask(ctx, t.twin.Talk()) == nil }); err != nil {
		return err
	}
	t.answered = time.Since(t.started)
	clients, rare := t.ask(ctx), t.askRarely(ctx)
	err := t.quiet(ctx)
	t.clients, t.rare = clients.Stop(), rare.Stop()
	if err != nil {
		return fmt.Errorf("%w; clients: %s; rare: %s", err, t.clients, t.rare)
	}
	if t.loops, err = t.bed.client.LoopHistory(ctx, t.workload, 1000); err != nil {
		return err
	}
	t.converged = 0
	for _, l := range t.loops {
		t.converged = max(t.converged, l.Ended.Sub(t.started))
		fmt.Printf("%s: loop %d: %s: %s, %d calls, %s\n", t.twin.Name, l.ID, l.Cause, l.Verdict, len(l.Calls), l.OracleFor.Round(time.Millisecond))
	}
	fmt.Printf("%s: converged in %s; clients: %s; rare: %s\n", t.twin.Name, t.converged.Round(time.Second), t.clients, t.rare)
	t.policy, err = t.bed.client.Policy(ctx, t.workload)
	return err
}

// quiet waits until no loop was needed for a while.
func (t *trial) quiet(ctx context.Context) error {
	var since time.Time
	return until(ctx, 15*time.Minute, t.twin.Name+" serves without a loop", func() bool {
		states, err := t.bed.client.Loops(ctx, t.workload)
		if err != nil || len(states) != 1 || states[0].State != loop.Production || states[0].Container == "" ||
			t.addr().Ask(ctx, t.twin.Talk()) != nil {
			since = time.Time{}
			return false
		}
		if since.IsZero() {
			since = time.Now()
		}
		return time.Since(since) > t.settle
	})
}

// attack with every exploit until an oracle has seen it, or for a minute.
func (t *trial) attack(ctx context.Context) error {
	for _, e := range t.twin.Exploits() {
		a, err := t.attackOnce(ctx, e)
		if err != nil {
			return fmt.Errorf("%s: %w", e.Name, err)
		}
		t.attacks = append(t.attacks, a)
		fmt.Printf("%s: %s: shell %t, %d tries: %s: %s; back after %s; others meanwhile: %s\n", t.twin.Name, e.Name, a.shell,
			a.tries, a.verdict, a.report, a.back.Round(time.Millisecond), a.requests)
	}
	return nil
}

func (t *trial) attackOnce(ctx context.Context, e twins.Exploit) (a attack, err error) {
	a.name = e.Name
	before, err := t.bed.client.LoopHistory(ctx, t.workload, 1000)
	if err != nil {
		return a, err
	}
	clients := t.ask(ctx)
	began := time.Now()
	var record *api.LoopRecord
	for record == nil && time.Since(began) < 80*time.Second {
		a.tries++
		once, cancel := context.WithTimeout(ctx, 10*time.Second)
		shell, _ := e.Run(once, t.addr()) // what goes wrong for an attacker is what is wanted
		cancel()
		a.shell = a.shell || shell
		history, err := t.bed.client.LoopHistory(ctx, t.workload, 1000)
		if err != nil {
			return a, err
		}
		if n := len(history); n > len(before) && !history[n-1].Ended.IsZero() {
			record = &history[n-1]
		}
		if err := sleep(ctx, 500*time.Millisecond); err != nil {
			return a, err
		}
	}
	err = until(ctx, time.Minute, "production is back", func() bool { return t.addr().Ask(ctx, t.twin.Talk()) == nil })
	a.back = time.Since(began)
	a.requests = clients.Stop()
	if err != nil {
		return a, err
	}
	if record != nil {
		a.verdict = record.Verdict
		if record.Report != nil {
			a.report = record.Report.Summary
		}
	}
	p, err := t.bed.client.Policy(ctx, t.workload)
	if err != nil {
		return a, err
	}
	for abi, calls := range p.ABIs {
		for _, phase := range calls.Phases {
			a.learned = a.learned || slices.Contains(phase.Names(abi), "execve")
		}
	}
	return a, nil
}

// compare what is served in a second: unprotected, after convergence, and always hardened; in turns, because machines vary.
func (t *trial) compare(ctx context.Context) error {
	t.compared = map[string][]float64{}
	if _, err := t.bed.env.Run(ctx, "stop", "-t", "20", t.twin.Name); err != nil {
		return err
	}
	others := map[string]twins.Image{unprotected: t.twin.Production, hardened: t.twin.Oracle}
	for name, image := range others {
		if err := t.create(ctx, t.twin.Name+"-"+name, image, false); err != nil {
			return err
		}
	}
	for range t.rounds {
		for _, kind := range kinds {
			name := t.twin.Name
			if kind != whittled {
				name += "-" + kind
			}
			rate, err := t.rate(ctx, name, kind == whittled)
			if err != nil {
				return fmt.Errorf("%s: %w", kind, err)
			}
			t.compared[kind] = append(t.compared[kind], rate)
		}
	}
	if !t.hardenedApart() {
		delete(t.compared, hardened)
	}
	return nil
}

const (
	unprotected = "unprotected"
	whittled    = "whittled"
	hardened    = "hardened"
)

var kinds = []string{unprotected, whittled, hardened}

// hardenedApart tells whether the oracle is another image; where its start hardens it, there is none that always is.
func (t *trial) hardenedApart() bool { return t.twin.Oracle.Name != t.twin.Production.Name }

func (t *trial) rate(ctx context.Context, name string, hooked bool) (float64, error) {
	args := []string{"start", name}
	if !hooked {
		var err error
		if args, err = t.bed.unhooked(args...); err != nil {
			return 0, err
		}
	}
	if _, err := t.bed.env.Run(ctx, args...); err != nil {
		return 0, err
	}
	if err := until(ctx, time.Minute, name+" answers", func() bool { return t.addr().Ask(ctx, t.twin.Talk()) == nil }); err != nil {
		return 0, err
	}
	time.Sleep(3 * time.Second) // booting, as far as calls are asked for, has ended
	stats := load.Run(ctx, t.addr(), t.twin.Heavy(), load.Load{Workers: 4, For: t.round})
	_, err := t.bed.env.Run(ctx, "stop", "-t", "20", name)
	if stats.Failed > 0 {
		return 0, fmt.Errorf("%s: %s", name, stats)
	}
	return stats.PerSecond(), err
}

// errorsOf the clients, shortened.
func errorsOf(s load.Stats) string {
	var all []string
	for text, n := range s.Errors {
		all = append(all, fmt.Sprintf("%d× %s", n, text))
	}
	slices.Sort(all)
	return strings.Join(all, "; ")
}
