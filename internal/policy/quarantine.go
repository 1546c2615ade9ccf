// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/whittle-sec/whittle/internal/syscalls"
	"github.com/whittle-sec/whittle/internal/workload"
)

// Quarantine is p without the calls in any phase, role or lane but the runtime's, because what was seen of them while
// learning is not trusted: somebody who is inside from the first second must not be able to teach what he needs by doing
// it. What is known of them stays as evidence, but for how often they were made, which would earn them a place among the
// calls that are not asked about. Calls of an ABI that p has not, and the kernel's own, are left alone.
//
// A call stays quarantined until a person grants it (Grant), the panel infers it (Infer), or p is merged with a policy
// that trusts it. So a learner quarantines what it proposes before it merges: see Merge.
func Quarantine(p Policy, why map[syscalls.Call]string) Policy {
	q := Normal(p)
	for call, reason := range why {
		c := q.ABIs[call.ABI]
		if c == nil || call.Nr >= syscalls.MaxNr || syscalls.KernelOwn(call.ABI).Has(call.Nr) {
			continue
		}
		c.takeAway(syscalls.SetOf(call.Nr))
		if c.Quarantined == nil {
			c.Quarantined = make(map[uint32]string)
		}
		c.Quarantined[call.Nr] = mergeReasons(c.Quarantined[call.Nr], oneReason(reason))
		if e, ok := c.Evidence[call.Nr]; ok {
			e.Rate, e.Phases = 0, PhaseCounts{}
			if !c.Floor.Has(call.Nr) {
				e.Source = "quarantined"
			}
			c.Evidence[call.Nr] = e
		}
	}
	return Normal(q)
}

// Infer is p with the call allowed to one role in the phases, because the panel of judges says so: reason is what it says.
// In a policy without roles it is allowed to the service. A role that p does not know gets what every role of p may make
// besides, as the plan gives it to roles that are not known: one more call must not cost it the others.
//
// What is withheld cannot be inferred. What is quarantined can be, and is so no more; in other phases and for other roles
// it is as refused as before. An asker whose role is not known teaches nothing where there are roles: it would be for all.
func Infer(p Policy, call syscalls.Call, phases []Phase, role string, reason string) (Policy, error) {
	q := Normal(p)
	c, err := q.granting(call)
	if err != nil {
		return Policy{}, fmt.Errorf("infer %s: %w", call, err)
	}
	reason = oneReason(reason)
	if err := c.inferable(call.Nr, phases, role, reason); err != nil {
		return Policy{}, fmt.Errorf("infer %s: %w", call, err)
	}
	e := c.Evidence[call.Nr]
	if why, ok := c.Quarantined[call.Nr]; ok {
		reason = mergeReasons(reason, oneReason("was quarantined: "+why))
		delete(c.Quarantined, call.Nr)
	}
	had := c.service().Has(call.Nr)
	c.inferRoles(call.Nr, phases, role)
	for _, phase := range phases {
		add(c.Phases, phase, call.Nr)
	}
	if !had {
		e.Source = strongerSource(e.Source, "inferred")
	}
	e.Reason = mergeReasons(e.Reason, reason)
	if role != "" {
		e.Roles = append(e.Roles, role)
	}
	c.Evidence[call.Nr] = e
	return Normal(q), nil
}

func (c *Calls) inferable(nr uint32, phases []Phase, role, reason string) error {
	if why, ok := c.Withheld[nr]; ok {
		return fmt.Errorf("it was withheld %s", why)
	}
	if reason == "" {
		return errors.New("no reason is given")
	}
	if len(phases) == 0 {
		return errors.New("no phase is named")
	}
	for _, phase := range phases {
		if int(phase) >= len(Phases) {
			return fmt.Errorf("there is no %v", phase)
		}
	}
	switch {
	case len(c.Roles) == 0:
		return nil
	case role == "" || isOther(role):
		return errors.New("whose it would be is not known, and the policy tells roles apart")
	case role != workload.Printable(role, maxText):
		return errors.New("the role's name is too long or cannot be shown")
	}
	if _, known := c.Roles[role]; !known && len(c.Roles) >= maxRoles {
		return fmt.Errorf("the policy has %d roles already", len(c.Roles))
	}
	return nil
}

// inferRoles gives the call to the role, where there are roles.
func (c *Calls) inferRoles(nr uint32, phases []Phase, role string) {
	if len(c.Roles) == 0 {
		return
	}
	if !c.service().Has(nr) {
		c.takeFromRoles(syscalls.SetOf(nr)) // what the phases did not have was never theirs
	}
	if !slices.ContainsFunc(c.roles(), func(r RoleCalls) bool { return r.has(nr) }) {
		// Granted or imported for everybody: that one role is named now must not take it from the others.
		for _, phase := range Phases {
			if c.Phases[phase].Has(nr) {
				c.addToRoles(phase, nr)
			}
		}
	}
	r, known := c.Roles[role]
	if !known {
		r = c.common()
	}
	for _, phase := range phases {
		add(r.Phases, phase, nr)
	}
	c.Roles[role] = r
}

func (c *Calls) addToRoles(phase Phase, nr uint32) {
	for _, r := range c.roles() {
		add(r.Phases, phase, nr)
	}
}

// common is what every role may: what a role that is not known may too (package plan).
func (c *Calls) common() RoleCalls {
	service := c.service()
	intersect := func(of func(RoleCalls) syscalls.Set) (s syscalls.Set) {
		first := true
		for name, r := range c.Roles {
			switch set := of(r).Intersect(service); {
			case set.Empty() || isOther(name):
			case first:
				s, first = set, false
			default:
				s = s.Intersect(set)
			}
		}
		return s
	}
	r := RoleCalls{Phases: make(map[Phase]syscalls.Set), Birth: intersect(func(r RoleCalls) syscalls.Set { return r.Birth })}
	for _, phase := range Phases {
		// Every phase goes on serving, and a boot is made of births.
		r.Phases[phase] = intersect(func(r RoleCalls) syscalls.Set {
			s := r.Phases[phase].Union(r.Phases[Run])
			if phase == Boot {
				s = s.Union(r.Birth)
			}
			return s
		})
	}
	return r
}

// service is the service lane's calls: they bound those of its roles, since a file need not agree with itself.
func (c *Calls) service() (s syscalls.Set) {
	for _, set := range c.Phases {
		s = s.Union(set)
	}
	return s
}

// takeAway from the service and exec lanes.
func (c *Calls) takeAway(not syscalls.Set) {
	c.Exec = c.Exec.Minus(not)
	c.Phases = without(c.Phases, not)
	c.takeFromRoles(not)
}

func (c *Calls) takeFromRoles(not syscalls.Set) {
	roles := make(map[string]RoleCalls, len(c.Roles))
	for name, r := range c.Roles {
		roles[name] = RoleCalls{Phases: without(r.Phases, not), Birth: r.Birth.Minus(not)}
	}
	c.Roles = roles
}

// quarantined is what of c.Quarantined counts: not what a person withheld, which says more, and not what some phase, role
// or lane has, because that is trusted.
func (c *Calls) quarantined() map[uint32]string {
	trusted := c.withheld().Union(c.beyondFloor())
	out := make(map[uint32]string, len(c.Quarantined))
	for nr, why := range c.Quarantined {
		if nr < syscalls.MaxNr && !trusted.Has(nr) {
			out[nr] = mergeReasons(why, "")
		}
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

// disputed is an error for a call that the same file trusts and has in quarantine: nobody can tell which was meant.
func (c *Calls) disputed(abi syscalls.ABI) error {
	trusted := c.beyondFloor().Minus(c.withheld())
	for nr := range c.Quarantined {
		if trusted.Has(nr) {
			return fmt.Errorf("%s is quarantined, and a phase, a role or the exec lane has it", syscalls.Name(abi, nr))
		}
	}
	return nil
}

// oneReason is a reason on one line that the separator of reasons does not make two of.
func oneReason(s string) string {
	return strings.TrimSpace(strings.ReplaceAll(workload.Printable(s, maxText), strings.TrimSpace(reasonSeparator), ","))
}
