// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/whittle-sec/whittle/internal/loop"
	"github.com/whittle-sec/whittle/internal/oracle"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/store"
)

// loopTick is how often a workload that is not in production is looked at: reports, ends, and what is due.
const loopTick = 250 * time.Millisecond

// loopRetry is how long what cannot be done yet waits.
const loopRetry = 2 * time.Second

// driver of one twin. Only its goroutine moves the workload's containers.
type driver struct {
	*twin
	stored []byte // what the store has
	state  loop.State
	again  time.Time // not before: something has to end first
	looked time.Time // at the oracle's container
	// armLooked is when it was looked for the oracle's hardening, unarmed why it was not found.
	armLooked time.Time
	unarmed   string
	reports   reports
	settled   bool      // what an earlier agent left under way has come to its end
	began     time.Time // waiting for that
	guard     Guard     // beside the oracle; nil: there is none
	guarded   bool      // it was tried
}

// driveTwins until ctx is done.
func (a *Agent) driveTwins(ctx context.Context) {
	for _, t := range a.twins.all() {
		a.start(func() { t.drive(ctx) })
	}
	for {
		select {
		case <-ctx.Done():
			return
		case t := <-a.twins.fresh:
			a.start(func() { t.drive(ctx) })
		}
	}
}

// drive a workload between production and its oracle.
func (t *twin) drive(ctx context.Context) {
	d := &driver{twin: t}
	tick := time.NewTicker(loopTick)
	defer tick.Stop()
	defer d.unguard()
	for ctx.Err() == nil {
		d.step(ctx)
		select {
		case <-t.ended: // not to be left to chance: somebody may have woken it as well
			return
		default:
		}
		due := tick.C
		if t.current() == loop.Production {
			due = nil
		}
		select {
		case <-ctx.Done():
		case <-t.wake:
		case <-due:
		}
	}
}

func (t *twin) current() loop.State {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.machine.State()
}

// step does what is due now. What is to be done is stored first.
func (d *driver) step(ctx context.Context) {
	now := d.agent.Now()
	if d.current() == loop.InOracle && d.quiesce(ctx) {
		d.stand(ctx, d.where().Oracle)
		d.watch(ctx) // first: what an abort spoils is not to be learned
		d.vouched(ctx, loop.InOracle)
	}
	d.mu.Lock()
	act := d.machine.Tick(now)
	state, removed, parked := d.machine.State(), d.removed, d.parked
	d.mu.Unlock()
	if state != d.state {
		d.state, d.again = state, time.Time{}
	}
	err := d.save(ctx)
	if err != nil || !now.Before(d.again) { // what is waited for stays told
		d.trouble(err)
	}
	d.give(ctx)
	if len(act.Commit) > 0 && d.vouched(ctx, state) {
		d.commit(ctx, act.Commit)
	}
	if now.Before(d.again) {
		return
	}
	switch state {
	case loop.Production:
		d.settled = true
		if len(act.Commit) == 0 {
			// Whoever was told that it is learned would wait for ever where a person has changed the policy since. Those that came
			// after the machine was asked may have begun a loop.
			d.let()
			d.refuse("it was learned before, but the policy does not have it for this program now", func(l looping) bool { return l.number <= parked })
		}
		if removed {
			d.end(ctx)
		}
	case loop.ToOracle:
		if err != nil {
			d.failed("nothing is begun that cannot be stored: " + err.Error())
			return
		}
		d.goThere(ctx)
	case loop.ToProduction, loop.Broken: // also where nothing can be stored
		if act.Return {
			d.comeBack(ctx)
		}
	}
}

// save what the machine goes on from, with the record of its loop.
func (d *driver) save(ctx context.Context) error {
	d.mu.Lock()
	data, err := json.Marshal(loopSaved{d.machine.Saved(), d.site})
	record, ok := d.machine.Record()
	record.Workload, record.Lost = d.id, d.site.Lost
	d.mu.Unlock()
	if err != nil {
		return fmt.Errorf("write the state of a time loop: %w", err)
	}
	if bytes.Equal(data, d.stored) {
		return nil
	}
	var records []store.LoopRecord
	if ok {
		text, err := json.Marshal(record)
		if err != nil {
			return fmt.Errorf("write the record of a time loop: %w", err)
		}
		records = append(records, store.LoopRecord{Workload: d.id, ID: record.ID, Started: record.Started, Record: text})
	}
	if err := d.agent.Store.PutLoop(ctx, d.id, data, records...); err != nil {
		return fmt.Errorf("store the state of a time loop: %w", err)
	}
	d.stored = data
	return nil
}

// trouble is shown by status until it is over.
func (d *driver) trouble(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	d.mu.Lock()
	same := d.problem == text
	d.problem = text
	who := "time loop of " + d.workload.Name()
	d.mu.Unlock()
	if !same {
		_ = d.agent.ask(context.Background(), func(m *model) error { m.problem(who, text); return nil })
	}
}

// failed tells the machine that the loop, or the way back from it, did not work.
func (d *driver) failed(why string) {
	now := d.agent.Now()
	d.mu.Lock()
	d.machine.Failed(now, why)
	d.mu.Unlock()
	d.tell("failed: " + why)
	d.stir()
}

// commit what the oracle reached to the policy.
func (d *driver) commit(ctx context.Context, keys []loop.Key) {
	d.mu.Lock()
	record, _ := d.machine.Record()
	reason := fmt.Sprintf("oracle: reached in time loop %d without an abort (%s, %s)", record.ID, d.spec.Kind, d.spec.Kind.Strength())
	d.mu.Unlock()
	if !d.teach(ctx, keys, "an oracle taught its workload more after it had started", reason) {
		return // Tick asks for it again
	}
	d.mu.Lock()
	d.machine.Committed(d.agent.Now(), keys)
	d.mu.Unlock()
	d.settle(key{}, "")
	d.tell("learned " + keyNames(keys) + ", which the oracle reached without aborting")
	d.trouble(d.save(ctx))
}

// teach the policy, and wait until it is stored. What happened is told to containers that are to be renewed for it.
func (d *driver) teach(ctx context.Context, keys []loop.Key, happened, reason string) bool {
	done := make(chan error, 1)
	err := d.agent.ask(ctx, func(m *model) error {
		m.queue = append(m.queue, loopJob{d.id, keys, happened, reason, done})
		return nil
	})
	if err == nil {
		select {
		case err = <-done:
		case <-ctx.Done():
			return false
		case <-d.agent.done:
			return false
		}
	}
	if err != nil {
		d.trouble(fmt.Errorf("learn for %s: %w", d.workload.Name(), err))
	}
	return err == nil
}

// loopJob puts what an oracle reached, or need not, into the policy.
type loopJob struct {
	id       string
	keys     []loop.Key
	happened string
	reason   string
	done     chan<- error
}

func (j loopJob) do(ctx context.Context, s *scholar) func(*model) {
	fail := func(err error) func(*model) { return func(*model) { j.done <- err } }
	b := s.book(ctx, j.id)
	if !b.loaded || !b.started {
		return fail(fmt.Errorf("its policy cannot be read: %s", s.trouble))
	}
	var problems []string
	for _, k := range j.keys {
		base, err := policy.Infer(b.base, k.Call, []policy.Phase{k.Phase}, roleFor(b.base, k), j.reason)
		if err != nil { // as withheld: to try again would not help
			problems = append(problems, err.Error())
			continue
		}
		b.base, b.dirty = base, true
	}
	s.saveBook(ctx, j.id, b, j.reason)
	if b.dirty {
		return fail(fmt.Errorf("it is not on the disk yet: %s", s.trouble))
	}
	orders, err := s.agent.loadOrders(ctx, j.id)
	if err != nil {
		return fail(err)
	}
	return func(m *model) {
		m.orders[j.id] = orders
		m.widened(j.id, j.happened)
		for _, c := range m.containers {
			if c.view.WorkloadID == j.id && !c.gone && c.held != nil {
				c.held.ward.SetOrders(orders)
			}
		}
		for _, p := range problems {
			m.workloadEvent(kindProblem, j.id, "learn from an oracle: "+p)
		}
		j.done <- nil
	}
}

// roleFor what an oracle reached, in production's words: the twin's program may lie elsewhere, or be valgrind's. Where a policy
// tells roles apart, one of them only is of the same generation, and the program is called alike, it is that one's. Any
// other program keeps its own role: a shell that the service started must not widen what the service may.
func roleFor(p policy.Policy, k loop.Key) string {
	calls := p.ABIs[k.Call.ABI]
	if calls == nil || len(calls.Roles) == 0 {
		return k.Role
	}
	if _, known := calls.Roles[k.Role]; known || k.Role == "" {
		return k.Role
	}
	found := ""
	for role := range calls.Roles {
		if role == "" || role[len(role)-1] != k.Role[len(k.Role)-1] {
			continue
		}
		if found != "" {
			return k.Role
		}
		found = role
	}
	if found == "" || !oracle.Alike(programOf(k.Role), programOf(found)) {
		return k.Role
	}
	return found
}

// programOf a role.
func programOf(role string) string { return role[:max(strings.LastIndexByte(role, ':'), 0)] }
