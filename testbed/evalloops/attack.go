// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/loop"
	"github.com/whittle-sec/whittle/testbed/load"
	"github.com/whittle-sec/whittle/testbed/twins"
)

// attack by one exploit.
type attack struct {
	name    string
	shell   bool
	tries   int
	verdict loop.Verdict
	report  string
	why     string        // no loop ended, or it failed
	served  bool          // the oracle did
	back    time.Duration // from the attack until production served again
	learned bool          // execve is in the policy: it must not be
	// What became of others' requests: in all of that time; and from the beginning of the loop until its oracle served, or
	// until its end if it never did.
	others, moving seen
}

// seen by clients in some time.
type seen struct {
	took     time.Duration
	requests int
	refused  int
	failed   int // otherwise: connections that were reset or closed, answers that were late or wrong
	silence  time.Duration
}

func look(record *load.Record, from, to time.Time) seen {
	all := record.During(from, to)
	s := seen{took: to.Sub(from), requests: len(all), silence: load.Silence(all, from, to)}
	for _, r := range all {
		switch {
		case r.Refused():
			s.refused++
		case r.Err != nil:
			s.failed++
		}
	}
	return s
}

func (s seen) String() string {
	return fmt.Sprintf("%d, %d, %d, %s", s.requests, s.refused, s.failed, seconds(s.silence))
}

// attackFirst with one exploit, and attackAgain with the others. What is measured between them takes longer than the minute for which
// no loop begins for the call that an attack has asked for.
func (t *trial) attackFirst(ctx context.Context) error {
	return t.attack(ctx, t.twin.Exploits()[:min(1, len(t.twin.Exploits()))])
}

func (t *trial) attackAgain(ctx context.Context) error {
	return t.attack(ctx, t.twin.Exploits()[min(1, len(t.twin.Exploits())):])
}

// attack with exploits, each until an oracle has seen it, or for as long as is given.
func (t *trial) attack(ctx context.Context, exploits []twins.Exploit) error {
	for _, e := range exploits {
		a, err := t.attackOnce(ctx, e)
		if err != nil {
			return fmt.Errorf("%s: %w", e.Name, err)
		}
		t.attacks = append(t.attacks, a)
		fmt.Printf("%s: %s: shell %t, %d tries: %s: %s; back after %s; others (requests, refused, failed, silence) until the oracle served: %s; in all: %s\n",
			t.twin.Name, e.Name, a.shell, a.tries, a.verdict, a.report+a.why, a.back.Round(time.Millisecond), a.moving, a.others)
	}
	return nil
}

func (t *trial) attackOnce(ctx context.Context, e twins.Exploit) (a attack, err error) {
	a.name = e.Name
	before, err := t.bed.client.LoopHistory(ctx, t.workload, 1000)
	if err != nil {
		return a, err
	}
	var requests load.Record
	clients := t.ask(ctx, &requests)
	began := time.Now()
	record, err := t.exploit(ctx, e, len(before), &a)
	if err == nil {
		err = until(ctx, 2*time.Minute, "production is back", func() bool { return t.inProduction(ctx) })
	}
	a.back = time.Since(began)
	clients.Stop()
	if err != nil {
		return a, err
	}
	a.others = look(&requests, began, began.Add(a.back))
	if record != nil {
		a.verdict = record.Verdict
		if record.Report != nil {
			a.report = record.Report.Summary
		}
		a.served, a.moving = !record.Served.IsZero(), look(&requests, record.Started, record.Ended)
		if a.served {
			a.moving = look(&requests, record.Started, record.Served)
		}
		if a.verdict == loop.VerdictFailed {
			a.why = record.Why
		}
	} else if a.why, err = t.whyNot(ctx, began); err != nil {
		return a, err
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

// exploit the service until the loop after so many has ended; nil when none had begun in time.
func (t *trial) exploit(ctx context.Context, e twins.Exploit, loops int, a *attack) (*api.LoopRecord, error) {
	for end := time.Now().Add(t.patience); ; {
		a.tries++
		once, cancel := context.WithTimeout(ctx, 10*time.Second)
		shell, _ := e.Run(once, t.addr()) // what goes wrong for an attacker is what is wanted
		cancel()
		a.shell = a.shell || shell
		states, err := t.bed.client.Loops(ctx, t.workload)
		if err != nil {
			return nil, err
		}
		under := slices.ContainsFunc(states, func(s api.LoopState) bool { return s.State != loop.Production })
		history, err := t.bed.client.LoopHistory(ctx, t.workload, 1000)
		if err != nil {
			return nil, err
		}
		if len(history) > loops && !history[loops].Ended.IsZero() { // not the last: another may have begun
			return &history[loops], nil
		}
		if time.Now().After(end) && !under {
			return nil, nil
		}
		if err := sleep(ctx, 500*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

// whyNot tells what the agent says of calls that were refused since then without a loop.
func (t *trial) whyNot(ctx context.Context, since time.Time) (string, error) {
	var all []string
	states, err := t.bed.client.Loops(ctx, t.workload)
	if err != nil {
		return "", err
	}
	for _, s := range states {
		all = append(all, s.Problems...)
		if s.Why != "" {
			all = append(all, s.Why)
		}
		for _, tried := range s.Tried {
			all = append(all, tried.Call+": "+tried.Why)
		}
	}
	if len(all) > 0 {
		return strings.Join(all, "; "), nil
	}
	events, err := t.bed.client.Events(ctx, api.EventQuery{Kind: "refused", Workload: t.workload, Limit: 100})
	if err != nil {
		return "", err
	}
	for _, e := range slices.Backward(events) {
		if e.Time.After(since) {
			said, _, _ := strings.Cut(e.Text, "; to allow it")
			return said, nil
		}
	}
	return "", nil
}
