// SPDX-License-Identifier: Apache-2.0

package ward

import (
	"time"

	"github.com/whittle-sec/whittle/internal/judge"
	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/internal/plan"
	"github.com/whittle-sec/whittle/internal/supervise"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// Court is who is asked about what the plan refuses.
type Court struct {
	Evidence Gatherer
	// Fleet is what the workload's other containers needed, and notes that this one does.
	Fleet func(syscalls.Call) judge.Fleet
	// Park a call until a person has decided. False: nobody can be asked, and it is refused.
	Park func(h supervise.Held, errno int32, c judge.Case) bool
}

// Gatherer is an origin.Gatherer of one container.
type Gatherer interface {
	Both(tid int, ip uint64, call syscalls.Call) (judge.Origin, judge.Import)
}

// A refusal is repeated without asking the panel again for so long: a flood must cost little. What would be allowed is never
// remembered here: the memory that an instruction lies in can change.
const (
	refusalHolds = time.Second
	maxRefusals  = 256
)

type refusalKey struct {
	tid   int
	ip    uint64
	call  syscalls.Call
	args  [6]uint64 // all calls of one function of the C library come from the same place
	asker plan.Asker
}

type refusal struct {
	until time.Time
	why   string
	panel *judge.Panel
}

// consult the panel about a call that the plan refuses. It runs in the judge of one container, never twice at once.
func (w *Ward) consult(h supervise.Held, asker plan.Asker, a plan.Answer, o *Orders, mode Mode) (v judge.Verdict, why string) {
	key := refusalKey{h.TID, h.IP, h.Call, h.Args, asker}
	if r, ok := w.refusals[key]; ok && w.now().Before(r.until) && r.panel == o.Panel {
		return judge.Refuse, r.why
	}
	c := judge.Case{
		Workload: o.Policy.Workload.ID(),
		Question: judge.Question{
			Call: h.Call, Args: h.Args, Lane: asker.Lane, Phase: asker.Phase, Role: asker.Role, Birth: asker.Birth,
			Refusal: a.Why, Novel: a.Novel, Arguments: a.Arguments, Withheld: a.Withheld,
		},
	}
	if asker.Lane != observe.LaneService && asker.Lane != observe.LaneExec {
		c.Question.Lane = observe.LaneService // whose role is not known: the strictest
	}
	c.Evidence.Origin, c.Evidence.Import = w.court.Evidence.Both(h.TID, h.IP, h.Call)
	if !a.Arguments { // the others' may have been others
		c.Evidence.Fleet = w.court.Fleet(h.Call)
	}
	c.Decision = o.Panel.Decide(c.Question, c.Evidence)
	if !w.valid(h) {
		// What was read may be about another thread by now; nobody waits for this answer.
		return judge.Refuse, a.Why
	}
	if c.Decision.Verdict == judge.Ask && (mode != Enforce || !w.court.Park(h, a.Errno, c)) {
		c.Decision.Verdict = judge.Refuse
	}
	w.Docket.note(c, w.now(), h.TID)
	why = a.Why + "; the panel: " + c.Decision.Why
	if c.Decision.Verdict == judge.Refuse {
		if w.refusals == nil || len(w.refusals) >= maxRefusals {
			w.refusals = map[refusalKey]refusal{}
		}
		w.refusals[key] = refusal{w.now().Add(refusalHolds), why, o.Panel}
	}
	return c.Decision.Verdict, why
}
