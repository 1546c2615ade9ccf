// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/kernel"
	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/internal/plan"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
	"github.com/whittle-sec/whittle/internal/ward"
	"github.com/whittle-sec/whittle/internal/workload"
)

// job for the scholar. It returns what the owner is to do with the result; nil for nothing.
type job interface {
	do(ctx context.Context, s *scholar) func(*model)
}

// subject of a survey.
type subject struct {
	key
	id       kernel.ID
	workload workload.Workload
	orders   *ward.Orders // that its held calls are answered by; nil when they are not held
}

func (c *tracked) subject() subject {
	s := subject{key: c.key, id: c.id, workload: c.view.Workload}
	if c.held != nil {
		s.orders = c.held.ward.Orders()
	}
	return s
}

// guard what a supervised container teaches: it may be refused nothing, and somebody may be inside.
func (s subject) guard(l Lesson) Lesson {
	if s.orders != nil {
		l.Policy = plan.Guard(l.Policy, s.orders.Policy)
	}
	return l
}

// ending says how a container's observation ends.
type ending struct {
	ended bool   // its processes are gone
	gap   string // else why it ends now, when that leaves a gap
}

// finish a container: no more is asked of its pidfd, and the scholar drains it.
func (m *model) finish(c *tracked, how ending) {
	c.gone = true
	c.exit.close()
	who := c.subject() // as it was held
	m.endHeld(c, how.ended)
	delete(m.observed, c.id)
	if c.id == 0 {
		m.event(kindStop, c, c.view.Name+" ended")
		m.forget(c)
		return
	}
	m.queue = append(m.queue, finishJob{
		subject: who, how: how, reg: c.reg, who: c, learn: c.learns,
	})
}

// forget a container that has ended, unless another with its id has come.
func (m *model) forget(c *tracked) {
	if m.containers[c.key] == c {
		delete(m.containers, c.key)
	}
}

type finishJob struct {
	subject
	how   ending
	reg   api.Registration
	who   *tracked // for the owner; the scholar does not look inside
	learn bool
}

func (j finishJob) do(ctx context.Context, s *scholar) func(*model) {
	trace, err := s.agent.Observer.Finish(j.id, j.how.ended)
	if err != nil {
		return func(m *model) {
			m.event(kindProblem, j.who, fmt.Sprintf("drain %s: %v", j.who.view.Name, err))
			m.forget(j.who)
		}
	}
	if !j.learn {
		return func(m *model) {
			j.who.exact(trace.Denied)
			m.tally(j.who)
			if j.how.ended {
				m.event(kindStop, j.who, j.who.view.Name+" ended")
			}
			m.forget(j.who)
		}
	}
	if j.how.gap != "" {
		trace.Account.Cut = j.how.gap
	}
	lesson := j.guard(s.agent.Learn(j.workload, trace))
	fresh := s.fold(ctx, j.subject, lesson)
	s.floor(ctx, j.reg, trace)
	return func(m *model) {
		j.who.exact(trace.Denied)
		m.tally(j.who)
		m.tellDoubts(j.who, fresh)
		view := observedView(j.who.view, lesson)
		what := "ended"
		if !j.how.ended {
			what = "is no longer observed"
		}
		m.event(kindStop, j.who, fmt.Sprintf("%s %s: %d calls seen, %s", view.Name, what, view.Distinct, wholeness(lesson.Policy)))
		m.forget(j.who)
	}
}

func wholeness(p policy.Policy) string {
	if p.Complete {
		return "complete"
	}
	if len(p.Partial) == 0 {
		return "partial"
	}
	return "partial: " + p.Partial[0]
}

// releaseJob stops observing a container that keeps running: nothing of it is left to learn.
type releaseJob struct {
	subject
	reg api.Registration
	who *tracked
}

func (j releaseJob) do(ctx context.Context, s *scholar) func(*model) {
	trace, err := s.agent.Observer.Finish(j.id, false)
	if err != nil {
		return func(m *model) { m.event(kindProblem, j.who, fmt.Sprintf("release %s: %v", j.who.view.Name, err)) }
	}
	lesson := j.guard(s.agent.Learn(j.workload, trace))
	fresh := s.fold(ctx, j.subject, lesson)
	s.floor(ctx, j.reg, trace)
	return func(m *model) {
		m.tellDoubts(j.who, fresh)
		m.event(kindRelease, j.who, j.who.view.Name+" has settled and its stop is known: it is no longer observed")
	}
}

// surveyJob looks at containers that are learned from.
type surveyJob struct {
	who  []subject
	save bool
}

func (j surveyJob) do(ctx context.Context, s *scholar) func(*model) {
	began := s.agent.Now()
	seen := make(map[key]glance, len(j.who))
	for _, w := range j.who {
		trace, err := s.agent.Observer.Trace(w.id)
		if err != nil {
			seen[w.key] = glance{id: w.id, err: err}
			continue
		}
		lesson := w.guard(s.agent.Learn(w.workload, trace))
		fresh := s.live(ctx, w, lesson)
		seen[w.key] = glance{id: w.id, lesson: lesson, doubts: fresh, stopKnown: s.stopKnown(w.workload.ID())}
	}
	s.renewOrders(j.who, seen)
	if j.save {
		s.save(ctx)
	}
	return func(m *model) {
		now := s.agent.Now()
		if rested := now.Add(surveyRest * now.Sub(began)); rested.After(m.rested) {
			m.rested = rested
		}
		m.surveyed(seen)
	}
}

// glance at one container.
type glance struct {
	id        kernel.ID
	lesson    Lesson
	stopKnown bool
	doubts    []doubt
	orders    *ward.Orders // when the policy has become another since
	err       error
}

type journalJob struct {
	events  []api.Event
	readers []chan<- struct{}
}

func (j journalJob) do(ctx context.Context, s *scholar) func(*model) {
	s.journal(ctx, j.events)
	for _, r := range j.readers {
		close(r)
	}
	return func(m *model) { m.writing = false }
}

type saveJob struct{}

func (saveJob) do(ctx context.Context, s *scholar) func(*model) {
	s.save(ctx)
	return nil
}

// lastJob is accepted when everything before it is done.
type lastJob struct{}

func (lastJob) do(context.Context, *scholar) func(*model) { return nil }

// runtimeCalls are those of the runtime lane: the floor of the runtime that started the container.
func runtimeCalls(t observe.Trace) map[syscalls.ABI]syscalls.Set {
	floor := map[syscalls.ABI]syscalls.Set{}
	for _, cell := range t.Cells {
		if cell.Lane != observe.LaneRuntime {
			continue
		}
		for _, seen := range cell.Calls {
			set := floor[seen.Call.ABI]
			set.Add(seen.Call.Nr)
			floor[seen.Call.ABI] = set
		}
	}
	return floor
}
