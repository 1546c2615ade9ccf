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
	"github.com/whittle-sec/whittle/testbed"
	"github.com/whittle-sec/whittle/testbed/load"
	"github.com/whittle-sec/whittle/testbed/twins"
)

// Ports of the service under whittle, unprotected, and always hardened: they run at the same time.
const (
	port = 18080 + iota
	unprotectedPort
	hardenedPort
)

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
	served    throughput
}

func (t *trial) addr() load.Target { return t.twin.Target(port) }

func (t *trial) answers(ctx context.Context, port int) bool {
	return t.twin.Target(port).Ask(ctx, t.twin.Talk()) == nil
}

// ask is four clients with a new connection for each request.
func (t *trial) ask(ctx context.Context, record *load.Record) *load.Running {
	return load.Start(ctx, t.addr(), t.twin.Talk(), load.Load{Workers: 4, PerConnection: 1, Pause: 5 * time.Millisecond, Record: record})
}

// askRarely is a client that now and then asks for all that the service can do; some of it needs other system calls.
func (t *trial) askRarely(ctx context.Context) *load.Running {
	all := t.twin.Honest()
	talk := func(conn net.Conn, r *bufio.Reader, n int) error { return all[n%len(all)](conn, r, n) }
	return load.Start(ctx, t.addr(), talk, load.Load{PerConnection: 1, Pause: time.Second})
}

// create a container of the service, not started.
func (t *trial) create(ctx context.Context, podman *testbed.Env, name string, image twins.Image, port int) error {
	// An exploit that fails has broken its process: the engine starts the service again.
	args := append([]string{"create", "--name", name, "--restart", "always", "--network", "host", image.Name}, t.twin.Command(port)...)
	_, err := podman.Run(ctx, args...)
	return err
}

// prepare a container that was never started, and name its oracle.
func (t *trial) prepare(ctx context.Context) error {
	for _, podman := range []*testbed.Env{t.bed.env, t.bed.plain} {
		if err := t.twin.Load(ctx, podman); err != nil {
			return err
		}
	}
	if err := t.create(ctx, t.bed.env, t.twin.Name, t.twin.Production, port); err != nil {
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
	if err := until(ctx, 2*time.Minute, "a first answer", func() bool { return t.answers(ctx, port) }); err != nil {
		return err
	}
	t.answered = time.Since(t.started)
	clients, rare := t.ask(ctx, nil), t.askRarely(ctx)
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

// inProduction tells whether production serves, and no loop is under way.
func (t *trial) inProduction(ctx context.Context) bool {
	states, err := t.bed.client.Loops(ctx, t.workload)
	return err == nil && len(states) == 1 && states[0].State == loop.Production && states[0].Container != "" && t.answers(ctx, port)
}

// quiet waits until no loop was needed for a while.
func (t *trial) quiet(ctx context.Context) error {
	var since time.Time
	return until(ctx, 15*time.Minute, t.twin.Name+" serves without a loop", func() bool {
		if !t.inProduction(ctx) {
			since = time.Time{}
			return false
		}
		if since.IsZero() {
			since = time.Now()
		}
		return time.Since(since) > t.settle
	})
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
