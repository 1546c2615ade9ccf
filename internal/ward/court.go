// SPDX-License-Identifier: Apache-2.0

package ward

import (
	"sync"
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
	// Loop parks a call that the panel does not let through until a time loop has found out about it. False: it is refused, and
	// why says why there is no loop. nil: the workload has no oracle.
	Loop      func(h supervise.Held, errno int32, c judge.Case) (parked bool, why string)
	HasOracle func() bool // without one nothing is said of loops; needed with Loop
	// Reach is set for an oracle, which goes by its workload's policy: it decides about what that does not have, in the panel's
	// place. It is not asked about what no loop ever learns.
	Reach func(h supervise.Held, c judge.Case) (allow bool, why string)
	// Aside does what takes longer than a worker may, which others wait for: it is done soon, and one at a time for each
	// container. False: too much of this container's is to be done already. nil: everything is done at once.
	Aside func(func()) bool
	// Waits and Settle are the supervisor's, for what is done aside.
	Waits  func(supervise.Held) bool
	Settle func(supervise.Held, supervise.Verdict) error
}

// Gatherer is an origin.Gatherer of one container.
type Gatherer interface {
	Both(tid int, ip uint64, call syscalls.Call) (judge.Origin, judge.Import)
}

// QuickGatherer also tells what takes no time, and false where it would have to read first.
type QuickGatherer interface {
	Gatherer
	Quick(tid int, ip uint64, call syscalls.Call) (judge.Origin, judge.Import, bool)
}

// SocketGatherer also tells what kind of socket a thread has under a descriptor, and takes no time for it.
type SocketGatherer interface {
	Socket(tid int, fd uint64) judge.Socket
}

// TargetGatherer also tells whom a thread's call signals, for which it reads about each process between the two.
type TargetGatherer interface {
	Target(tid int, call syscalls.Call, args [6]uint64) judge.Target
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

// hearing of a call that the plan refuses.
type hearing struct {
	held   supervise.Held
	asker  plan.Asker
	answer plan.Answer
	orders *Orders
	mode   Mode
}

func (x *hearing) key() refusalKey {
	return refusalKey{x.held.TID, x.held.IP, x.held.Call, x.held.Args, x.asker}
}

func (x *hearing) question() judge.Question {
	q := judge.Question{
		Call: x.held.Call, Args: x.held.Args, Lane: x.asker.Lane, Phase: x.asker.Phase, Role: x.asker.Role, Birth: x.asker.Birth,
		Refusal: x.answer.Why, Novel: x.answer.Novel, Arguments: x.answer.Arguments, Withheld: x.answer.Withheld,
	}
	if q.Lane != observe.LaneService && q.Lane != observe.LaneExec {
		q.Lane = observe.LaneService // whose role is not known: the strictest
	}
	return q
}

// consult the panel about a call that the plan refuses. What it needs to know may take long to read, and the container
// decides how long: then the call waits aside, and no other container's.
func (w *Ward) consult(x hearing) supervise.Verdict {
	if why, ok := w.refusals.find(x.key(), x.orders.Panel, w.now()); ok {
		x.answer.Why = why
		return w.conclude(x, false)
	}
	if e, ok := w.court.quick(x.held); ok {
		return w.decide(x, e, w.valid)
	}
	if !w.court.Aside(func() { w.decideAside(x) }) {
		x.answer.Why += "; the panel was not asked, because too many of its calls wait to be looked at"
		return w.conclude(x, false)
	}
	return supervise.Verdict{Later: true, Allow: x.mode == Shadow, Errno: x.answer.Errno} // shadow refuses nothing
}

// quick is the evidence that is at hand.
func (c *Court) quick(h supervise.Held) (e judge.Evidence, ok bool) {
	quick, can := c.Evidence.(QuickGatherer)
	if c.Aside == nil || !can {
		e.Origin, e.Import = c.Evidence.Both(h.TID, h.IP, h.Call)
		return e, true
	}
	if judge.OfTarget(h.Call) {
		return e, false
	}
	e.Origin, e.Import, ok = quick.Quick(h.TID, h.IP, h.Call)
	return e, ok
}

// decideAside answers a call whatever happens: nobody else will.
func (w *Ward) decideAside(x hearing) {
	v := supervise.Verdict{Allow: x.mode == Shadow, Errno: x.answer.Errno}
	defer func() {
		if !v.Later {
			_ = w.court.Settle(x.held, v) // its caller may be gone
		}
	}()
	var e judge.Evidence
	e.Origin, e.Import = w.court.Evidence.Both(x.held.TID, x.held.IP, x.held.Call)
	v = w.decide(x, e, w.court.Waits)
}

// decide by what was gathered, if the caller waits still.
func (w *Ward) decide(x hearing, e judge.Evidence, waits func(supervise.Held) bool) supervise.Verdict {
	if s, ok := w.court.Evidence.(SocketGatherer); ok && judge.OfSocket(x.held.Call) {
		e.Socket = s.Socket(x.held.TID, x.held.Args[0])
	}
	if s, ok := w.court.Evidence.(TargetGatherer); ok && judge.OfTarget(x.held.Call) {
		e.Target = s.Target(x.held.TID, x.held.Call, x.held.Args)
	}
	if !waits(x.held) {
		// What was read may be about another thread by now; nobody waits for this answer, and it is counted nowhere.
		return supervise.Verdict{Errno: x.answer.Errno}
	}
	c := judge.Case{Workload: x.orders.Policy.Workload.ID(), Question: x.question(), Evidence: e}
	if counts(c, x.answer) {
		c.Evidence.Fleet = w.court.Fleet(x.held.Call)
	}
	c.Decision = x.orders.Panel.Decide(c.Question, c.Evidence)
	if w.court.Reach != nil {
		return w.reach(x, c)
	}
	parked, loopless := false, ""
	if c.Decision.Verdict < judge.Once {
		if parked, loopless = w.loop(x, c); parked {
			return supervise.Verdict{Later: true, Errno: x.answer.Errno} // its case is told when the loop has ended
		}
	}
	if c.Decision.Verdict == judge.Ask {
		if parked = x.mode == Enforce && w.court.Park(x.held, x.answer.Errno, c); !parked {
			c.Decision.Verdict = judge.Refuse
		}
	}
	w.Docket.note(c, w.now(), x.held.TID)
	if parked {
		return supervise.Verdict{Later: true, Errno: x.answer.Errno}
	}
	x.answer.Why += "; the panel: " + c.Decision.Why + loopless
	allow := c.Decision.Verdict >= judge.Once
	if allow {
		x.answer.Errno = 0
	} else {
		w.refusals.keep(x.key(), refusal{w.now().Add(refusalHolds), x.answer.Why, x.orders.Panel})
	}
	return w.conclude(x, allow)
}

// counts tells whether a call is one that the replicas of a workload can be compared by: not one of injected code, by which
// one intruder would speak for another, nor of a person's shell; and with other arguments it may be another.
func counts(c judge.Case, a plan.Answer) bool {
	class := c.Evidence.Origin.Class
	return c.Question.Lane == observe.LaneService && !a.Arguments &&
		(class == judge.File || class == judge.Vdso || class == judge.Unknown)
}

// refusals of the panel that hold still.
type refusals struct {
	mu   sync.Mutex
	kept map[refusalKey]refusal
}

func (r *refusals) find(k refusalKey, panel *judge.Panel, now time.Time) (why string, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	kept, ok := r.kept[k]
	return kept.why, ok && now.Before(kept.until) && kept.panel == panel
}

func (r *refusals) keep(k refusalKey, v refusal) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.kept == nil || len(r.kept) >= maxRefusals {
		r.kept = map[refusalKey]refusal{}
	}
	r.kept[k] = v
}
