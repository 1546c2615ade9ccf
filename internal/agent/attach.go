// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/filter"
	"github.com/whittle-sec/whittle/internal/holder"
	"github.com/whittle-sec/whittle/internal/inject"
	"github.com/whittle-sec/whittle/internal/kernel"
	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/ward"
)

var (
	_ api.Attacher = (*Agent)(nil)
	_ api.Sealer   = (*Agent)(nil)
)

// attachTime bounds one injection: fork storms converge in half a second, a thread in D state is waited for.
const attachTime = 30 * time.Second

// Attach to a running container.
func (a *Agent) Attach(ctx context.Context, by api.Peer, r api.AttachRequest) (api.AttachResult, error) {
	if a.Supervising == nil {
		return api.AttachResult{}, fmt.Errorf("%w: this agent does not supervise", api.ErrInvalid)
	}
	s, err := a.siteOf(ctx, r.Container, r.PID)
	if err != nil {
		return api.AttachResult{}, err
	}
	rules, err := a.rulesFor(ctx, s)
	if err != nil {
		return api.AttachResult{}, err
	}
	if s.request.Program, err = filter.Compile(rules); err != nil {
		return api.AttachResult{}, err
	}
	s.request.Listener, s.request.Skip = true, !s.deaf
	if s.held && !s.deaf && s.program != nil {
		s.request.Program = s.program // one listener per process: only those without the filter get it
	}
	out := api.AttachResult{Container: s.view.Name, Workload: s.view.WorkloadName, DryRun: r.DryRun, Mode: r.Mode}
	out.Open, out.Held = openAndHeld(s.orders, policy.Run)
	if p := s.orders.Policy; !p.Complete {
		out.Warnings = append(out.Warnings, "its policy is "+wholeness(p))
	}
	if r.DryRun {
		return a.survey(s, rules, out)
	}
	if s.held && !s.deaf && s.program == nil { // whatever runs in it was started under its filter
		out.Complete, out.Warnings = true, append(out.Warnings, s.view.Name+" is supervised since its start")
	} else {
		out, err = a.attach(ctx, s, out, "attach")
	}
	if err != nil || r.Mode == "" {
		return out, err
	}
	// After it: setting the mode first would have the agent attach by itself at the same time.
	_, err = a.SetMode(ctx, by, api.ModeChange{Workload: s.view.WorkloadID, Mode: r.Mode, By: by.Name()})
	return out, err
}

// attach the filter of a plan, with the record made before and confirmed after.
func (a *Agent) attach(ctx context.Context, s site, out api.AttachResult, how string) (api.AttachResult, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), attachTime) // half of it would be worse than all
	defer cancel()
	seq, err := a.Store.IntendSupervision(ctx, recordOf(s, how))
	if err != nil {
		return out, fmt.Errorf("nothing was changed: %w", err)
	}
	result, err := a.inject(ctx, s.c, s.request)
	fill(&out, result)
	if out.Listeners == 0 && (how == "attach" || err != nil) { // nothing that was intended is in the kernel
		if err != nil {
			err = fmt.Errorf("attach to %s: %w", s.view.Name, err)
		}
		out.Complete = out.Complete && s.held
		return out, errors.Join(err, a.Store.AbandonSupervision(ctx, seq))
	}
	if err != nil { // somebody has to read the listeners that there are, or what is held waits for ever
		out.Complete, out.Warnings = false, append(out.Warnings, err.Error())
	}
	err = a.ask(ctx, func(m *model) error {
		err := m.attached(s, result, how, seq)
		if s.c.held != nil && out.Mode == "" {
			out.Mode = api.WorkloadMode(s.c.held.ward.Mode().String())
		}
		return err
	})
	if err != nil {
		result.Close()
	}
	return out, err
}

// attached takes over what an injection brought.
func (m *model) attached(s site, r inject.Result, how string, seq int64) error {
	c := s.c
	if c.gone || m.containers[c.key] != c {
		return fmt.Errorf("%w: %s has ended meanwhile", api.ErrNotFound, s.view.Name)
	}
	switch how {
	case "seal":
		return m.sealed(c, s, seq)
	case "narrow":
		pid, started := c.view.PID, startOf(c.view.PID)
		m.record(func(ctx context.Context, st Store) error { return st.ConfirmSupervision(ctx, seq, pid, started) })
		return nil
	}
	if c.id == 0 {
		if err := m.follow(c); err != nil {
			return err
		}
	}
	if c.held == nil {
		m.supervise(c, s.orders, how, seq)
		if m.modeFor(c) == api.ModeLearn {
			c.held.ward.SetMode(ward.Shadow) // it was asked for: nothing is refused before it is said so
		}
	}
	c.held.ward.SetOrders(s.orders)
	if c.view.Phase != policy.Boot || c.view.Late && processAge(c.view.PID) > bootTime {
		if stage, ok := m.agent.Observer.Stage(c.id); ok && stage == observe.StageBoot {
			if err := m.agent.Observer.SetStage(c.id, observe.StageRun); err != nil {
				return err
			}
		}
	}
	c.held.program = s.request.Program
	errs := []error{m.agent.Observer.Hold(c.id)}
	for _, p := range r.Processes {
		errs = append(errs, m.keepListeners(c, p))
	}
	c.held.confirmed = true
	pid, started := c.view.PID, startOf(c.view.PID)
	m.record(func(ctx context.Context, s Store) error { return s.ConfirmSupervision(ctx, seq, pid, started) })
	m.event(kindAttach, c, fmt.Sprintf("%s is supervised (%s): its %d processes have the filter of policy %d, %s, stopped for %s", c.view.Name,
		c.held.ward.Mode(), len(r.Processes), s.orders.Revision, planText(s.orders), r.Frozen.Round(10*time.Microsecond)))
	m.agent.start(func() { m.agent.attest(context.Background(), c) })
	return errors.Join(errs...)
}

// hold the calls that come to a listener: the supervisor answers them, and a duplicate goes to the holder.
func (m *model) hold(c *tracked, pid, fd int) (err error) {
	if m.holder != nil {
		_, err = m.holder.Keep(holder.Kept{Container: c.key.id, PID: pid, FD: fd, Injected: true})
	}
	return errors.Join(err, m.listen(c, fd))
}

// follow a container that is not observed (any more).
func (m *model) follow(c *tracked) (err error) {
	c.id, err = m.agent.Observer.Follow(kernel.Target{
		CgroupID: c.view.CgroupID, MountNS: c.view.MountNS, InitPID: c.view.PID, Late: true, Held: true,
		StopSignal: c.reg.Container.StopSignal, NameOf: nameOf(c.view.Workload.Command),
	})
	if err != nil {
		return err
	}
	m.observed[c.id] = c
	c.learns = false
	if c.held != nil {
		c.held.ward.SetObserved(c.id)
	}
	return m.agent.Observer.SetStage(c.id, observe.StageRun)
}

// bringUnder attaches to a container whose mode says that its calls are to be held; again, where the listeners of a filter that
// it has are lost.
func (m *model) bringUnder(c *tracked, again bool) {
	if m.agent.Supervising == nil || c.attaching || c.view.PID == 0 {
		return
	}
	c.attaching = true
	view := c.view
	m.agent.start(func() {
		out, err := m.agent.attachTo(context.Background(), c, view, again)
		_ = m.agent.ask(context.Background(), func(m *model) error {
			c.attaching = false
			switch {
			case c.gone:
			case err != nil:
				m.event(kindProblem, c, fmt.Sprintf("%s cannot be supervised while it runs: %v; the next start is", c.view.Name, err))
			case !out.Complete:
				m.event(kindProblem, c, fmt.Sprintf("%s is supervised in part: %s", c.view.Name, strings.Join(out.Warnings, "; ")))
			}
			return nil
		})
	})
}

func (a *Agent) attachTo(ctx context.Context, c *tracked, view api.Container, again bool) (out api.AttachResult, err error) {
	s := site{c: c, view: view, held: false}
	if s.orders, err = a.loadOrders(ctx, view.WorkloadID); err != nil {
		return out, err
	}
	if s.request, err = requestFor(view); err != nil {
		return out, err
	}
	s.request.Listener, s.request.Skip = true, !again
	if err := s.sideEffect(); err != nil && !again {
		return out, err
	}
	if s.request.Program, err = a.programFor(ctx, s); err != nil {
		return out, err
	}
	return a.attach(ctx, s, out, "attach")
}
