// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/judge"
	"github.com/whittle-sec/whittle/internal/origin"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/supervise"
	"github.com/whittle-sec/whittle/internal/syscalls"
	"github.com/whittle-sec/whittle/internal/ward"
)

// Judging is what the panel of judges needs. Without it, what is not in a policy is refused.
type Judging struct {
	Evidence *origin.Gatherer
	Rules    judge.Associations // nil: that judge is silent
	// Ask is how long a call that nothing speaks against, and not enough for, waits for a person; 0: it is refused.
	Ask time.Duration
}

// court of one container.
func (m *model) court(c *tracked, s *supervise.Supervisor) *ward.Court {
	a := m.agent
	if a.Judging == nil {
		return nil
	}
	who, id := c.key, c.view.WorkloadID
	of := api.Waiting{Container: c.key.id, Name: c.view.Name, Engine: c.engine, Workload: id, WorkloadName: c.view.WorkloadName}
	c.held.home = &home{base: a.Judging.Evidence, init: c.view.PID, fail: func(err error) { m.agent.homeless(c, err) }}
	reads := &aside{slots: a.reading, used: threadTime, failed: func(err any) {
		a.Log.Error("gather evidence about a held call: it is refused", "container", of.Name, "err", err)
	}}
	court := &ward.Court{
		Evidence: c.held.home,
		Fleet:    func(call syscalls.Call) judge.Fleet { return a.fleet.asked(id, who, call) },
		Park: func(h supervise.Held, errno int32, asked judge.Case) bool {
			return a.desk.park(of, s, h, errno, asked)
		},
		Aside: reads.do, Waits: s.Waits, Settle: s.Settle,
	}
	m.loopCourt(c, s, court)
	return court
}

// home is the evidence about one container, which knows what came with it once its first program runs: a runtime enters the
// container's root before that.
type home struct {
	base *origin.Gatherer
	init int
	fail func(error) // is told once that it is not known what came with the container
	once sync.Once
	own  atomic.Pointer[origin.Gatherer]
	why  string // there is no gatherer
}

// gatherer of the container's own; nil where it is not known what came with it.
func (h *home) gatherer() *origin.Gatherer {
	h.once.Do(func() {
		found, err := origin.HomeOf(h.init)
		if err != nil {
			h.why = "what came with the container is not known: " + err.Error()
			h.fail(err)
			return
		}
		h.own.Store(h.base.In(found))
	})
	return h.own.Load()
}

// Both is origin.Gatherer's. What the plan refuses is asked by the container's own programs: the runtime's calls it allows.
func (h *home) Both(tid int, ip uint64, call syscalls.Call) (judge.Origin, judge.Import) {
	if own := h.gatherer(); own != nil {
		return own.Both(tid, ip, call)
	}
	// To go by what came with the caller would be laxer: a program that an engine's exec started is taken for the
	// container's first then. What tells injected code stays.
	o, _ := h.base.Both(tid, ip, call)
	if judge.Injected(o) == "" {
		o = judge.Origin{Why: h.why}
	}
	return o, judge.Import{Why: h.why}
}

// homeless is told of a container whose image's files cannot be told from others: its programs vouch for nothing.
func (a *Agent) homeless(c *tracked, err error) {
	go func() { // a held call waits for the evidence, and must not wait for the owner
		_ = a.ask(context.Background(), func(m *model) error {
			m.event(kindProblem, c, fmt.Sprintf("%s: what came with it is not known, so what its programs need counts for nothing: %v",
				c.view.Name, err))
			return nil
		})
	}()
}

// Quick is origin.Gatherer's.
func (h *home) Quick(tid int, ip uint64, call syscalls.Call) (o judge.Origin, i judge.Import, ok bool) {
	if own := h.own.Load(); own != nil {
		return own.Quick(tid, ip, call)
	}
	return o, i, false
}

// Socket is origin.Gatherer's.
func (h *home) Socket(tid int, fd uint64) judge.Socket { return h.base.Socket(tid, fd) }

// Target is origin.Gatherer's.
func (h *home) Target(tid int, call syscalls.Call, args [6]uint64) judge.Target {
	return h.base.Target(tid, call, args)
}

// warm reads ahead about the programs of a container, so that no held call waits for it. One container at a time: an image
// may hold many large files.
func (m *model) warm(c *tracked) {
	a, h, pid := m.agent, c.held.home, c.view.PID
	if h == nil || pid == 0 {
		return
	}
	a.start(func() {
		select {
		case a.warming <- struct{}{}:
		case <-a.done:
			return
		}
		defer func() { <-a.warming }()
		own := h.gatherer()
		if own == nil {
			return // which was said
		}
		if err := own.Warm(pid); err != nil {
			a.Log.Debug("read ahead for the panel", "container", c.view.Name, "err", err)
		}
	})
}

// tellJudged journals the cases that are new, and has the policy learn what the panel inferred.
func (m *model) tellJudged(c *tracked) {
	for _, heard := range c.held.ward.Docket.Due() {
		m.event(kindJudged, c, judgedText(c.view.Name, heard))
		e := &m.events[len(m.events)-1]
		e.Call, e.Data = heard.Question.Call.String(), caseData(heard.Case)
		if heard.Decision.Verdict == judge.Learn {
			m.queue = append(m.queue, inferJob{c.subject(), heard.Case})
		}
	}
}

func judgedText(container string, h ward.Heard) string {
	q, d := h.Question, h.Decision
	text := fmt.Sprintf("%s: the panel: %s %s by %s[%d] lane %s", container, verdictWord(d.Verdict), q.Call, h.Comm, h.TID, q.Lane)
	if q.Role != "" {
		text += ", role " + q.Role
	}
	return text + fmt.Sprintf(", while in %s (%s): %s", q.Phase, q.Refusal, d.Why)
}

func verdictWord(v judge.Verdict) string {
	switch v {
	case judge.Learn:
		return "allowed, and learned,"
	case judge.Once:
		return "allowed once"
	case judge.Ask:
		return "asks a person about"
	}
	return "refused"
}

// maxCaseData is what a row of the journal takes (package store); one that is larger would keep all others out.
const maxCaseData = 16 << 10

// caseData is the case, with its texts as short as they must be: the container made the names in it.
func caseData(c judge.Case) json.RawMessage {
	for limit := 512; limit >= 16; limit /= 2 {
		data, err := json.Marshal(c)
		if err != nil {
			return nil // strings and numbers only
		}
		if len(data) <= maxCaseData {
			return data
		}
		c = c.Short(limit)
	}
	return nil
}

// inferJob puts a call into the policy that the panel has vouched for.
type inferJob struct {
	subject
	judge.Case
}

func (j inferJob) do(ctx context.Context, s *scholar) func(*model) {
	id := j.subject.workload.ID()
	b := s.book(ctx, id)
	if !b.loaded || !b.started {
		return nil // the store has failed, which status shows; the panel is asked again the next time
	}
	q := j.Question
	base, err := policy.Infer(b.base, q.Call, []policy.Phase{q.Phase}, q.Role, j.Decision.Why)
	if err != nil {
		return func(m *model) { m.workloadEvent(kindProblem, id, fmt.Sprintf("learn %s: %v", q.Call, err)) }
	}
	b.base, b.dirty = base, true
	fresh := s.newOrders(id, j.orders)
	s.saveBook(ctx, id, b, q.Call.String()+" inferred by the panel of judges")
	if fresh == nil {
		return nil
	}
	return func(m *model) {
		m.widened(id, q.Call.String()+" was inferred after it had started")
		for _, c := range m.containers {
			if c.view.WorkloadID == id && !c.gone && c.held != nil {
				c.held.ward.SetOrders(fresh)
			}
		}
	}
}
