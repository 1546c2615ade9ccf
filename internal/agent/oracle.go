// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/hint"
	"github.com/whittle-sec/whittle/internal/loop"
	"github.com/whittle-sec/whittle/internal/oracle"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
	"github.com/whittle-sec/whittle/internal/workload"
)

var _ api.OracleKeeper = (*Agent)(nil)

// SetOracle of a workload, which need not have run yet.
func (a *Agent) SetOracle(ctx context.Context, _ api.Peer, r api.OracleRequest) (out api.OracleState, err error) {
	switch {
	case a.Supervising == nil || a.Moving == nil:
		return out, fmt.Errorf("%w: this agent does not supervise", api.ErrInvalid)
	case a.Judging == nil:
		return out, hint.Add(fmt.Errorf("%w: without the panel nothing is known of a call, and so nothing can be learned", api.ErrInvalid),
			"start the agent without --panel=false")
	}
	if err := r.Spec.Validate(); err != nil {
		return out, fmt.Errorf("%w: %w", api.ErrInvalid, err)
	}
	w, err := a.findWorkload(ctx, r.Workload)
	if err != nil {
		return out, err
	}
	spec := r.Spec
	spec.By, spec.Why, spec.Since = cmpOr(r.By, "root"), r.Why, a.Now()
	text, err := json.Marshal(storedOracle{spec, w})
	if err != nil {
		return out, fmt.Errorf("write the oracle: %w", err)
	}
	if err := a.Store.PutOracle(ctx, w.ID(), text); err != nil {
		return out, err
	}
	t := a.setTwin(ctx, w, spec)
	err = a.ask(ctx, func(m *model) error {
		m.modeOf(w.ID()).name = w.Name()
		m.workloadEvent(kindLoop, w.ID(), fmt.Sprintf("%s has an oracle: %s, by %s: %s", w.Name(), oracleText(spec), spec.By, cmpOr(r.Why, "no reason given")))
		return nil
	})
	if err != nil {
		return out, err
	}
	var notes []string
	if r.Start {
		if notes, err = a.startEmpty(ctx, w, spec); err != nil {
			return out, err
		}
	}
	out = a.oracleState(ctx, t)
	out.Notes = append(notes, out.Notes...)
	return out, nil
}

func oracleText(s oracle.Spec) string {
	text := fmt.Sprintf("%s (%s)", s.Kind, s.Kind.Strength())
	if s.Image != "" {
		text += ", image " + workload.Printable(s.Image, 160)
	}
	return text
}

// setTwin of a workload. A loop that is under way goes on with the oracle that it has.
func (a *Agent) setTwin(ctx context.Context, w workload.Workload, spec oracle.Spec) *twin {
	if t := a.twins.find(w.ID()); t != nil {
		t.mu.Lock()
		t.spec, t.removed = spec, false
		t.machine = loop.New(a.limits(spec), t.machine.Saved())
		t.machine.Reset(a.Now())
		t.gave = nil
		t.mu.Unlock()
		t.stir()
		return t
	}
	t := a.newTwin(w, spec, loopSaved{})
	a.twins.add(t)
	select {
	case a.twins.fresh <- t:
	case <-a.done:
	case <-ctx.Done():
	}
	return t
}

// startEmpty enforces a workload at once, from an empty policy where nothing was learned of it.
func (a *Agent) startEmpty(ctx context.Context, w workload.Workload, spec oracle.Spec) (notes []string, err error) {
	fresh, err := a.beginEmpty(ctx, w)
	if err != nil {
		return nil, err
	}
	if fresh {
		notes = append(notes, "its policy is empty, and only what its oracle reaches will be learned")
	}
	err = a.ask(ctx, func(m *model) error {
		mode := m.modeOf(w.ID())
		mode.name, mode.set, mode.by, mode.why = w.Name(), api.ModeEnforce, spec.By, cmpOr(spec.Why, "it has an oracle")
		m.enter(mode, api.ModeEnforce, "set by "+spec.By)
		m.storeMode(mode)
		return nil
	})
	return append(notes, "it is enforced from now on"), err
}

// beginEmpty stores a policy that allows nothing for a workload that has none.
func (a *Agent) beginEmpty(ctx context.Context, w workload.Workload) (fresh bool, err error) {
	done := make(chan emptyDone, 1)
	err = a.ask(ctx, func(m *model) error {
		m.queue = append(m.queue, emptyJob{w, done})
		return nil
	})
	if err != nil {
		return false, err
	}
	select {
	case d := <-done:
		return d.fresh, d.err
	case <-ctx.Done():
		return false, ctx.Err()
	case <-a.done:
		return false, fmt.Errorf("%w", ErrStopping)
	}
}

type emptyDone struct {
	fresh bool
	err   error
}

// emptyJob keeps the scholar the only writer of policies.
type emptyJob struct {
	w    workload.Workload
	done chan<- emptyDone
}

func (j emptyJob) do(ctx context.Context, s *scholar) func(*model) {
	b := s.book(ctx, j.w.ID())
	switch {
	case !b.loaded:
		j.done <- emptyDone{err: errors.New(s.trouble)}
		return nil
	case b.started:
		j.done <- emptyDone{}
		return nil
	}
	// Complete: nothing was observed, so nothing was missed.
	b.add(policy.Policy{Workload: j.w, Complete: true, ABIs: map[syscalls.ABI]*policy.Calls{native: {}}})
	b.dirty = true
	s.saveBook(ctx, j.w.ID(), b, "it begins with nothing: its oracle teaches it")
	if b.dirty {
		j.done <- emptyDone{err: fmt.Errorf("it is not on the disk: %s", s.trouble)}
		return nil
	}
	j.done <- emptyDone{fresh: true}
	return nil
}

// findWorkload by what names one that is known, or a container, also one that was created and never started.
func (a *Agent) findWorkload(ctx context.Context, ref string) (workload.Workload, error) {
	p, err := a.Store.Policy(ctx, ref)
	if err == nil {
		return p.Workload, nil
	}
	if !errors.Is(err, api.ErrNotFound) {
		return workload.Workload{}, err
	}
	for _, t := range a.twins.all() {
		if t.id == ref || t.workload.Name() == ref {
			return t.workload, nil
		}
	}
	var found workload.Workload
	_ = a.ask(ctx, func(m *model) error {
		for _, c := range m.containers {
			if c.view.WorkloadID == ref || c.view.WorkloadName == ref || c.view.Name == ref || c.key.id == ref {
				found = c.view.Workload
			}
		}
		return nil
	})
	if found.Image != "" || len(found.Command) > 0 {
		return found, nil
	}
	for _, e := range a.Engines {
		c, inspectErr := inspect(ctx, e, ref)
		if inspectErr == nil {
			return c.Workload, nil
		}
		if !errors.Is(inspectErr, engine.ErrUnknownContainer) {
			err = errors.Join(err, inspectErr)
		}
	}
	return found, hint.Add(err, "create its container first: podman create …; or name a workload of: whittle policy list")
}

// twinsNamed are all for "", or the one of a workload.
func (a *Agent) twinsNamed(ctx context.Context, ref string) ([]*twin, error) {
	all := a.twins.all()
	if ref == "" {
		return all, nil
	}
	for _, t := range all {
		if t.id == ref || t.workload.Name() == ref || t.where().Name == ref {
			return []*twin{t}, nil
		}
	}
	w, err := a.findWorkload(ctx, ref)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(all, func(t *twin) bool { return t.id == w.ID() })
	if i < 0 {
		return nil, hint.Add(fmt.Errorf("%w: %s has no oracle", api.ErrNotFound, w.Name()), "whittle oracle set "+w.Name()+" --image IMAGE")
	}
	return all[i : i+1], nil
}

// Oracles of all workloads, or of one.
func (a *Agent) Oracles(ctx context.Context, ref string) ([]api.OracleState, error) {
	all, err := a.twinsNamed(ctx, ref)
	if err != nil {
		return nil, err
	}
	states := make([]api.OracleState, 0, len(all))
	for _, t := range all {
		states = append(states, a.oracleState(ctx, t))
	}
	return states, nil
}

func (a *Agent) oracleState(ctx context.Context, t *twin) api.OracleState {
	spec := t.specNow()
	s := api.OracleState{Workload: t.id, Name: t.workload.Name(), Spec: spec, Strength: spec.Kind.Strength().String()}
	running := false
	_ = a.ask(ctx, func(m *model) error {
		s.Mode = m.modeOf(t.id).now
		for _, c := range m.containers {
			if c.view.WorkloadID != t.id || c.gone {
				continue
			}
			running = true
			if a.maker(c.engine) == nil {
				s.Problems = append(s.Problems, fmt.Sprintf("whittle cannot make containers of %s's engine (%s)", c.view.Name, c.engine))
			}
			if s.Mode == api.ModeEnforce && c.held == nil {
				s.Problems = append(s.Problems, c.view.Name+" was started without a filter of whittle's")
			}
		}
		return nil
	})
	if s.Mode != api.ModeEnforce {
		s.Notes = append(s.Notes, "an unknown call begins a loop only where calls are refused: whittle policy mode "+t.workload.Name()+" enforce")
	}
	if !running {
		s.Notes = append(s.Notes, "no container of it runs")
	}
	return s
}

func (t *twin) specNow() oracle.Spec {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.spec
}

// RemoveOracle of a workload, after production has come back.
func (a *Agent) RemoveOracle(ctx context.Context, by api.Peer, ref string) error {
	all, err := a.twinsNamed(ctx, ref)
	if err != nil {
		return err
	}
	if ref == "" || len(all) != 1 {
		return fmt.Errorf("%w: no workload is named", api.ErrInvalid)
	}
	t := all[0]
	t.mu.Lock()
	t.removed = true
	if t.machine.State() != loop.Production {
		t.machine.Failed(a.Now(), "its oracle was removed by "+strings.TrimSpace(by.Name()))
	}
	t.mu.Unlock()
	t.stir()
	select {
	case <-t.ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-a.done:
		return fmt.Errorf("%w", ErrStopping)
	}
}

// end of a workload's having an oracle. Production serves.
func (d *driver) end(ctx context.Context) {
	err := errors.Join(d.agent.Store.DeleteOracle(ctx, d.id), d.agent.Store.DeleteLoop(ctx, d.id))
	if err != nil && !errors.Is(err, api.ErrNotFound) {
		d.trouble(fmt.Errorf("remove the oracle: %w", err))
		d.again = d.agent.Now().Add(loopRetry)
		return
	}
	ts := &d.agent.twins
	ts.mu.Lock()
	delete(ts.of, d.id)
	ts.mu.Unlock()
	_ = d.agent.ask(ctx, func(m *model) error {
		m.workloadEvent(kindLoop, d.id, d.workload.Name()+" has no oracle any more; what it taught stays")
		return nil
	})
	d.mu.Lock()
	d.over = true
	d.mu.Unlock()
	d.settle(key{}, "its workload has no oracle any more")
	close(d.ended)
}
