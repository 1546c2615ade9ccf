// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"

	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// Asker is whose call is held. Role is "PATH:GENERATION" as in policy.Calls.Roles, "" when it is not known.
type Asker struct {
	Lane  observe.Lane
	Phase policy.Phase
	Role  string
	Birth bool
}

// Answer to a held call. The zero Answer refuses, with an errno that the asker has to supply; those of Plan.Answer have one.
type Answer struct {
	Action policy.Action
	Errno  int32 // of a refusal, else 0
	Novel  bool  // in no phase and lane of the policy; what is quarantined is as new as if it had never been seen
	Why    string
	// Why it is refused, for those who judge that. At most one is true.
	Arguments   bool // the call may be made, but not with these arguments
	Withheld    bool // a person took it away
	Quarantined bool // it was seen while learning, and is not trusted
}

func allow(why string) Answer { return Answer{Action: policy.Allow, Why: why} }

// Answer a held call. An asker whose lane is not known is taken for a task of the service whose role is not known.
//
// An x32 call is one of its own ABI here; the filter refuses it without asking where the policy has no x32.
func (p *Plan) Answer(a Asker, call syscalls.Call, args [6]uint64) Answer {
	if a.Lane == observe.LaneRuntime {
		// Trusted code of the host: no program of the container can be in that lane.
		return allow("the runtime's own code, before the container's first program")
	}
	t := p.tables[call.ABI]
	if t == nil {
		return Answer{Errno: policy.ENOSYS, Novel: true, Why: fmt.Sprintf("the workload was never seen using the %v calls", call.ABI)}
	}
	if call.Nr >= syscalls.MaxNr {
		return Answer{Errno: policy.ENOSYS, Novel: true, Why: "no kernel has the number"}
	}
	if t.class.own.Has(call.Nr) {
		return allow("the kernel or the C library makes it on its own")
	}
	answer := p.inLane(a, t, call.Nr)
	// What was started from outside may make memory executable by mprotect: a compiler that maps it so gains nothing.
	compiles := a.Lane == observe.LaneExec && t.class.maps.Has(call.Nr)
	if answer.Action == policy.Allow && !compiles && !matches(t.calls.Args[call.Nr], args) {
		answer = Answer{Why: "not with these arguments", Arguments: true}
	}
	if answer.Action != policy.Allow {
		answer.Errno = policy.RefusalErrno(p.policy, call)
		if t.entries[call.Nr].Place == Shut {
			answer.Errno = p.shutErrno(call)
		}
		answer.Novel = !t.all.Has(call.Nr) && !answer.Withheld || answer.Quarantined
	}
	return answer
}

// inLane answers before arguments are looked at.
func (p *Plan) inLane(a Asker, t *table, nr uint32) Answer {
	e := t.entries[nr]
	why, withheld := t.calls.Withheld[nr]
	doubt, quarantined := t.calls.Quarantined[nr]
	switch {
	case e.Place == Shut:
		return Answer{Why: e.Why, Withheld: withheld, Quarantined: quarantined}
	case e.Place == Open:
		// The kernel lets it through for everybody. A filter of before it was opened may still ask.
		return allow(e.Why)
	case withheld:
		return Answer{Why: "withheld " + why, Withheld: true}
	case a.Lane == observe.LaneExec:
		// The service cannot teach that exec may do less than any exec.
		if answer := p.exec(t, nr); answer.Action == policy.Allow || !quarantined {
			return answer
		}
		return Answer{Why: "quarantined: " + doubt, Quarantined: true}
	case quarantined:
		return Answer{Why: "quarantined: " + doubt, Quarantined: true}
	}
	if a.Lane != observe.LaneService {
		a.Role = "" // LaneNone, and whatever else there may be
	}
	return p.service(a, t, nr)
}

// exec answers what was started in the container from outside: it may do what was seen of exec, what the service may in
// any of its phases, what is harmless, and what a shell needs to be one. A health check that was seen does not make a shell
// less. None of that is given to the service: lanes are told apart by who started the task, which nothing in the
// container decides.
func (p *Plan) exec(t *table, nr uint32) Answer {
	switch {
	case t.calls.Exec.Has(nr):
		return allow("seen of exec before")
	case t.service.Has(nr):
		return allow("by exec, and the service makes it in some phase")
	case t.class.harmless.Has(nr):
		return allow("by exec, and it is harmless")
	case t.class.starting.Has(nr):
		return allow("by exec, and a shell needs it")
	}
	return Answer{Why: "not seen of exec"}
}

func (p *Plan) service(a Asker, t *table, nr uint32) Answer {
	if int(a.Phase) >= len(policy.Phases) {
		return Answer{Why: "the phase is not known"}
	}
	if a.Phase == policy.Stop && !p.stopped && t.class.harmless.Has(nr) {
		return allow("no stop was learned, and it is harmless: data has to be saved")
	}
	where, all := p.phaseWords(a.Phase), t.whole
	r, known := t.roles[a.Role]
	who := a.Role // printable, if it is a name of the policy's; otherwise it is not said
	switch {
	case !t.byRole.Has(nr):
		// Granted, imported, or from a policy without roles: nothing is known that could narrow it.
		r, who = all, "the service"
	case !known:
		r, who = t.unknown, "every role, and so to one that is not known,"
	}
	switch {
	case r.serving[a.Phase].Has(nr):
		return allow("allowed to " + who + " " + where)
	case a.Birth && r.birth.Has(nr):
		return allow("allowed to " + who + " while it is starting")
	case !t.service.Has(nr):
		return Answer{Why: "not in the policy"}
	case known && r.birth.Has(nr):
		return Answer{Why: who + " makes it only while it is starting"}
	case all.serving[a.Phase].Has(nr) && known:
		return Answer{Why: who + " does not make it " + where + ", other roles do"}
	case all.serving[a.Phase].Has(nr):
		return Answer{Why: "only some roles make it " + where + ", and this one is not known"}
	}
	return Answer{Why: "in the policy, but not " + where}
}

// phaseWords is a phase in an answer.
func (p *Plan) phaseWords(phase policy.Phase) string {
	switch phase {
	case policy.Boot:
		return "while booting"
	case policy.Run:
		return "while running"
	case policy.Reload:
		if !p.reloaded {
			return "while reloading (none was learned: what booting and running need)"
		}
		return "while reloading"
	}
	if !p.stopped {
		return "while stopping (none was learned: what running needs and what is harmless)"
	}
	return "while stopping"
}

// matches is policy's semantics of argument rules: AND over indexes, OR over the rules of one.
func matches(rules []policy.ArgRule, args [6]uint64) bool {
	var wanted, met [256]bool
	for _, r := range rules {
		wanted[r.Index] = true
		met[r.Index] = met[r.Index] || r.Matches(args)
	}
	return wanted == met
}
