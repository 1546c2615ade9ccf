// SPDX-License-Identifier: Apache-2.0

// Package ward is one supervised container: the plan it runs under, how strictly that is applied, and the judge that
// answers its held calls with them. It decides nothing itself (package plan does), reads no listener (package supervise
// does) and knows no other container.
package ward

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/whittle-sec/whittle/internal/judge"
	"github.com/whittle-sec/whittle/internal/kernel"
	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/internal/plan"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/supervise"
	"github.com/whittle-sec/whittle/internal/workload"
)

// Mode is what becomes of a call that the plan refuses. The zero Mode refuses it.
type Mode uint32

const (
	Enforce Mode = iota
	Shadow       // it is let through and counted
	Off          // everything is let through and only the number of calls is counted
)

func (m Mode) String() string {
	switch m {
	case Shadow:
		return "shadow"
	case Off:
		return "off"
	}
	return "enforce"
}

// Kernel is what a ward asks of kernel.Observer.
type Kernel interface {
	Who(id kernel.ID, tid int) (kernel.Who, bool)
	Stage(id kernel.ID) (observe.Stage, bool)
}

// Orders are what a ward goes by. They are not changed after OrdersOf.
type Orders struct {
	Plan     *plan.Plan
	Panel    *judge.Panel  // about what the plan refuses
	Policy   policy.Policy // that the plan was made of
	Revision int           // of the policy, as stored
	programs []string      // paths in the roles of the policy
}

// OrdersOf a policy. rules of association may be nil.
func OrdersOf(p policy.Policy, revision int, o plan.Options, rules judge.Associations) *Orders {
	programs := map[string]bool{}
	for _, calls := range p.ABIs {
		for role := range calls.Roles {
			if at := strings.LastIndexByte(role, ':'); at > 0 {
				programs[role[:at]] = true
			}
		}
	}
	return &Orders{
		Plan: plan.Make(p, o), Panel: judge.New(p, rules), Policy: p, Revision: revision,
		programs: slices.Sorted(maps.Keys(programs)),
	}
}

// has tells whether a program has a role.
func (o *Orders) has(path string) bool {
	_, ok := slices.BinarySearch(o.programs, path)
	return ok
}

// Ward is one supervised container. Its methods may be called by any goroutine.
type Ward struct {
	Tally  *supervise.Tally
	Docket *Docket
	now    func() time.Time

	kernel   Kernel
	boot     boot
	init     int           // the container's first process, for the lane of those that the kernel did not see being made
	started  bool          // see StartedUnder
	observed atomic.Uint32 // kernel.ID
	mode     atomic.Uint32
	orders   atomic.Pointer[Orders]
	known    roles
	court    *Court // nil: what the plan refuses is refused
	refusals refusals
	valid    func(supervise.Held) bool

	calls, wouldDeny, denied atomic.Uint64
}

// New ward of a container that the kernel observes under id, and whose first process is init.
func New(k Kernel, id kernel.ID, init int, o *Orders, m Mode, now func() time.Time) *Ward {
	w := &Ward{Tally: supervise.NewTally(), Docket: newDocket(), valid: supervise.Held.Valid, now: now, kernel: k, init: init}
	w.observed.Store(uint32(id))
	w.orders.Store(o)
	w.mode.Store(uint32(m))
	return w
}

// StartedUnder says, before the first Judge, that a runtime has put the filter on the container's first process, and nobody on what
// was running.
func (w *Ward) StartedUnder() { w.started = true }

// Consults a court about what the plan refuses. Say so before the first Judge.
func (w *Ward) Consults(c *Court) { w.court = c }

// SetOrders for the next held call.
func (w *Ward) SetOrders(o *Orders) { w.orders.Store(o) }

// Orders that held calls are answered by.
func (w *Ward) Orders() *Orders { return w.orders.Load() }

// SetMode for the next held call.
func (w *Ward) SetMode(m Mode) { w.mode.Store(uint32(m)) }

// Mode in force.
func (w *Ward) Mode() Mode { return Mode(w.mode.Load()) }

// SetObserved tells under which id the kernel knows the container from now on.
func (w *Ward) SetObserved(id kernel.ID) { w.observed.Store(uint32(id)) }

// Counts of the held calls: all of them, those that shadow let through although the plan refuses them, and those that
// were refused.
func (w *Ward) Counts() (calls, wouldDeny, denied uint64) {
	return w.calls.Load(), w.wouldDeny.Load(), w.denied.Load()
}

// Phase that the container is in. One that the kernel does not know of is running, which is the strictest.
func (w *Ward) Phase() policy.Phase {
	stage, ok := w.kernel.Stage(kernel.ID(w.observed.Load()))
	if !ok {
		return policy.Run
	}
	switch stage {
	case observe.StageBoot:
		w.boot.booting()
		return policy.Boot
	case observe.StageReload:
		return policy.Reload
	case observe.StageStop:
		return policy.Stop
	}
	if w.boot.goesOn(w.now()) {
		return policy.Boot
	}
	return policy.Run
}

// Judge a held call of the container. It is a supervise.Judge.
func (w *Ward) Judge(h supervise.Held) supervise.Verdict {
	w.calls.Add(1)
	mode := Mode(w.mode.Load())
	if mode == Off {
		return supervise.Verdict{Allow: true}
	}
	orders := w.orders.Load()
	asker := w.asker(h, orders)
	a := orders.Plan.Answer(asker, h.Call, h.Args)
	allow := a.Action == policy.Allow
	if allow && asker.Phase == policy.Boot && w.boot.late() {
		serving := asker
		serving.Phase = policy.Run
		if orders.Plan.Answer(serving, h.Call, h.Args).Action != policy.Allow {
			w.boot.needed(w.now())
		}
	}
	x := hearing{h, asker, a, orders, mode}
	if !allow && w.court != nil && !a.Withheld {
		return w.consult(x)
	}
	return w.conclude(x, allow)
}

// conclude counts what was decided, and applies the mode.
func (w *Ward) conclude(x hearing, allow bool) supervise.Verdict {
	allowed := allow || x.mode == Shadow
	switch {
	case allow:
	case allowed:
		w.wouldDeny.Add(1)
	default:
		w.denied.Add(1)
	}
	w.note(x.held, x.asker, x.answer, allowed, !allow)
	return supervise.Verdict{Allow: allowed, Errno: x.answer.Errno}
}

// asker of a held call. Reading about a thread is not racy here: the answer counts only while the call waits, and as
// long as it waits its thread is the same and executes no other program.
func (w *Ward) asker(h supervise.Held, o *Orders) plan.Asker {
	asker := plan.Asker{Phase: w.Phase()}
	if who, ok := w.kernel.Who(kernel.ID(w.observed.Load()), h.TID); ok {
		asker.Lane, asker.Birth = who.Lane, who.Birth
		if asker.Role = policy.RoleKey(who.Role.Exe, who.Role.Generation); o.has(who.Role.Exe) || asker.Lane != observe.LaneService {
			return asker
		}
		// The program has other names than the one it was learned by: a link, or where a link leads.
		if t, err := supervise.Lookup(h.TID); err == nil {
			if role := w.known.find(t, o.programs); role != "" {
				asker.Role = role
			}
		}
		return asker
	}
	t, err := supervise.Lookup(h.TID)
	if err != nil {
		return asker // in no lane: nothing is allowed there
	}
	asker.Lane, asker.Birth = w.laneOf(t), t.Age < birthAge
	if asker.Lane != observe.LaneRuntime {
		asker.Role = w.known.find(t, o.programs)
	}
	return asker
}

func (w *Ward) note(h supervise.Held, asker plan.Asker, a plan.Answer, allowed, refused bool) {
	key := supervise.Key{
		Lane: asker.Lane.String(), Phase: asker.Phase.String(), Call: h.Call, Allowed: allowed, Errno: a.Errno,
	}
	if refused {
		key.Role, key.Why = asker.Role, a.Why
	}
	w.Tally.Note(key, w.now(), h.TID, func() string { return commOf(h.TID) })
}

func commOf(tid int) string {
	p, err := supervise.ReadProcess(tid)
	if err != nil {
		return "?"
	}
	return workload.Printable(p.Comm, 16)
}

// roles of processes that the kernel programs did not see being made: those that were there before the agent.
type roles struct {
	mu    sync.Mutex
	found map[program]string
}

// program that a process runs. It changes with an exec.
type program struct {
	tgid     int
	start    uint64
	dev, ino uint64
	forked   bool
}

// maxPrograms bounds what is remembered of a container that makes processes without end.
const maxPrograms = 4096

// birthAge is how old a process may be to count as being born, where nothing else is known of it.
const birthAge = 5 * time.Second

// find the role of a process by /proc: the role whose path leads, in the container's own file system, to the file that the
// process executes. "" when there is none.
func (r *roles) find(t supervise.Task, programs []string) (role string) {
	key := program{t.TGID, t.Start, t.ExeDev, t.ExeIno, t.Forked}
	r.mu.Lock()
	role, ok := r.found[key]
	r.mu.Unlock()
	if ok {
		return role
	}
	generation := uint8(0)
	if t.Forked {
		generation = 1
	}
	for _, path := range programs {
		if supervise.SameFile(t.TGID, path) {
			role = policy.RoleKey(path, generation)
			break
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.found == nil || len(r.found) >= maxPrograms {
		r.found = map[program]string{}
	}
	r.found[key] = role
	return role
}
