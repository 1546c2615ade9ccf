// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"slices"

	"github.com/whittle-sec/whittle/internal/syscalls"
)

// Action is what a static filter does with a call.
type Action uint8

const (
	Refuse Action = iota // the caller gets an errno and the call is not made
	Allow
)

func (a Action) String() string {
	if a == Allow {
		return "allow"
	}
	return "refuse"
}

// The errnos of a refusal. They are the same numbers in every ABI that Whittle knows.
const (
	EPERM  int32 = 1
	ENOSYS int32 = 38
)

// Decision about one call. Errno is what the caller gets when Action is Refuse, and 0 otherwise; Decide never refuses
// with errno 0, which a filter would turn into a call that seems to have succeeded.
type Decision struct {
	Action Action
	Errno  int32
}

// Selection is the part of a policy that a static profile is made of. The zero Selection is every phase without the exec
// lane. The floor and the kernel's own calls are always part of it.
type Selection struct {
	// Phases whose service calls are allowed. Nil means all of them; empty but not nil means none.
	Phases []Phase
	// Exec adds the calls of the exec lane (podman exec, health checks).
	Exec bool
}

func (s Selection) phases() []Phase {
	if s.Phases == nil {
		return Phases[:]
	}
	return s.Phases
}

// Decide is the reference semantics of a static profile: what the compiled filter must answer to a call with these
// arguments, whatever task of the container makes it.
//
//   - An ABI that is not in the policy is refused with ENOSYS as a whole.
//   - The kernel's own calls (syscalls.KernelOwn) are allowed with any arguments.
//   - A call of the floor, of a selected phase or, if selected, of the exec lane is allowed if its arguments match its
//     rules. Rules belong to the call, not to a lane: whoever writes them includes the values of every lane.
//   - A call that is quarantined is in no set but the floor's.
//   - A call that is withheld counts as one of the floor's at most.
//   - Everything else is refused, with the errno of RefusalErrno.
func Decide(p Policy, sel Selection, call syscalls.Call, args [6]uint64) Decision {
	calls := p.ABIs[call.ABI]
	if calls == nil {
		return Decision{Refuse, ENOSYS}
	}
	if syscalls.KernelOwn(call.ABI).Has(call.Nr) {
		return Decision{Action: Allow}
	}
	if calls.selected(sel).Has(call.Nr) && matches(calls.Args[call.Nr], args) {
		return Decision{Action: Allow}
	}
	return Decision{Refuse, RefusalErrno(p, call)}
}

// AllowedSet is every call of the ABI that Decide allows with at least some arguments.
func AllowedSet(p Policy, sel Selection, abi syscalls.ABI) syscalls.Set {
	calls := p.ABIs[abi]
	if calls == nil {
		return syscalls.Set{}
	}
	set := calls.selected(sel)
	for nr, rules := range calls.Args {
		if nr < syscalls.MaxNr && !satisfiable(rules) {
			set.Remove(nr)
		}
	}
	return set.Union(syscalls.KernelOwn(abi))
}

// RefusalErrno is the errno with which a call is answered when it is refused. It depends on the number alone, never on
// the arguments, so that a filter needs one list for it.
func RefusalErrno(p Policy, call syscalls.Call) int32 {
	calls := p.ABIs[call.ABI]
	switch {
	case calls == nil, call.Nr > syscalls.Last(call.ABI):
		// What a kernel without this ABI, or older than the call, would say.
		return ENOSYS
	case calls.Denied[call.Nr].Errno == ENOSYS:
		// The workload was seen to live with this answer; it need not live with another.
		return ENOSYS
	case FallsBack(call):
		return ENOSYS
	}
	return EPERM
}

// selected is the calls of a selection, before argument rules.
func (c *Calls) selected(sel Selection) syscalls.Set {
	var set syscalls.Set
	for _, phase := range sel.phases() {
		set = set.Union(c.Phases[phase])
	}
	if sel.Exec {
		set = set.Union(c.Exec)
	}
	// The floor goes past what is withheld: without it the container would not start.
	return set.Minus(c.withheld()).Union(c.Floor)
}

// Matches reports whether an argument satisfies the rule.
func (r ArgRule) Matches(args [6]uint64) bool {
	return int(r.Index) < len(args) && args[r.Index]&r.Mask == r.Value
}

// matches is AND over the indexes that have rules, OR over the rules of one index.
func matches(rules []ArgRule, args [6]uint64) bool {
	return everyIndex(rules, func(r ArgRule) bool { return r.Matches(args) })
}

// satisfiable reports whether any arguments match.
func satisfiable(rules []ArgRule) bool {
	return everyIndex(rules, func(r ArgRule) bool { return r.Index < 6 && r.Value&^r.Mask == 0 })
}

func everyIndex(rules []ArgRule, ok func(ArgRule) bool) bool {
	for _, rule := range rules {
		same := func(r ArgRule) bool { return r.Index == rule.Index && ok(r) }
		if !slices.ContainsFunc(rules, same) {
			return false
		}
	}
	return true
}
