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

// Grant is p with the calls allowed to the service in the phases, all of them if there are none, because a person said so:
// by names the person. Every role may make what one role may, since the person did not name one. Rules for the arguments
// of a call stay. What was withheld or quarantined is so no more.
//
// An ABI that the workload was never seen using cannot be granted by the call: it would bring all its numbers with it.
func Grant(p Policy, calls []syscalls.Call, phases []Phase, by, why string) (Policy, error) {
	reason, err := signed(by, why)
	if err != nil {
		return Policy{}, fmt.Errorf("grant calls: %w", err)
	}
	if len(phases) == 0 {
		phases = Phases[:]
	}
	q := Normal(p)
	for _, call := range calls {
		c, err := q.granting(call)
		if err != nil {
			return Policy{}, fmt.Errorf("grant %s: %w", call, err)
		}
		delete(c.Withheld, call.Nr)
		delete(c.Quarantined, call.Nr)
		for _, phase := range phases {
			if int(phase) >= len(Phases) {
				return Policy{}, fmt.Errorf("grant %s: there is no %v", call, phase)
			}
			add(c.Phases, phase, call.Nr)
		}
		c.grantRoles(phases, call.Nr)
		e := c.Evidence[call.Nr]
		e.Source = strongerSource(e.Source, "granted")
		e.Reason = mergeReasons(e.Reason, reason)
		c.Evidence[call.Nr] = e
	}
	return Normal(q), nil
}

// Withdraw is p without the calls in any phase, role or lane but the runtime's, because a person said so. They stay
// withheld when the policy is merged with what is learned later, until they are granted.
func Withdraw(p Policy, calls []syscalls.Call, by, why string) (Policy, error) {
	reason, err := signed(by, why)
	if err != nil {
		return Policy{}, fmt.Errorf("withdraw calls: %w", err)
	}
	q := Normal(p)
	for _, call := range calls {
		c, err := q.granting(call)
		if err != nil {
			return Policy{}, fmt.Errorf("withdraw %s: %w", call, err)
		}
		if c.Withheld == nil {
			c.Withheld = make(map[uint32]string)
		}
		c.Withheld[call.Nr] = mergeReasons(c.Withheld[call.Nr], reason)
		if c.Evidence[call.Nr].Count == 0 { // an older grant
			delete(c.Evidence, call.Nr)
		}
	}
	return Normal(q), nil
}

// granting is where a person's word about a call goes.
func (p Policy) granting(call syscalls.Call) (*Calls, error) {
	c := p.ABIs[call.ABI]
	switch {
	case c == nil:
		return nil, fmt.Errorf("the workload was never seen using the %v system calls", call.ABI)
	case call.Nr >= syscalls.MaxNr:
		return nil, fmt.Errorf("no kernel has number %d", call.Nr)
	case syscalls.KernelOwn(call.ABI).Has(call.Nr):
		return nil, errors.New("the kernel makes it on its own, so it is always allowed")
	}
	return c, nil
}

// signed is who and why on one line.
func signed(by, why string) (string, error) {
	clean := func(s string) string {
		// The separator of reasons would make two of one.
		return strings.TrimSpace(strings.ReplaceAll(workload.Printable(s, maxText/3), ";", ","))
	}
	by, why = clean(by), clean(why)
	if by == "" {
		return "", errors.New("nobody is named who decided it")
	}
	if why == "" {
		return "by " + by, nil
	}
	return "by " + by + ": " + why, nil
}

// grantRoles adds the call where roles narrow it. Who answers by role takes a call that no role makes for every role's.
func (c *Calls) grantRoles(phases []Phase, nr uint32) {
	narrowed := func(r RoleCalls) bool { return r.has(nr) }
	if !slices.ContainsFunc(c.roles(), narrowed) {
		return
	}
	for _, r := range c.roles() {
		for _, phase := range phases {
			add(r.Phases, phase, nr)
		}
	}
}

// roles in no order. Their maps are those of c.
func (c *Calls) roles() (list []RoleCalls) {
	for _, r := range c.Roles {
		list = append(list, r)
	}
	return list
}

func (r RoleCalls) has(nr uint32) bool {
	for _, set := range r.Phases {
		if set.Has(nr) {
			return true
		}
	}
	return r.Birth.Has(nr)
}

func add(m map[Phase]syscalls.Set, phase Phase, nr uint32) {
	set := m[phase]
	set.Add(nr)
	m[phase] = set
}

// withheld is the set of what is withheld.
func (c *Calls) withheld() syscalls.Set { return numbersOf(c.Withheld) }

// numbersOf what is said of calls, as far as they are numbers of calls.
func numbersOf(said map[uint32]string) (s syscalls.Set) {
	for nr := range said {
		if nr < syscalls.MaxNr {
			s.Add(nr)
		}
	}
	return s
}

// withoutWithheld is c with its service and exec lanes without what is withheld; c itself when nothing is.
func (c *Calls) withoutWithheld() *Calls {
	not := c.withheld()
	if not.Empty() {
		n := *c
		n.Withheld = nil
		return &n
	}
	n := *c
	n.takeAway(not)
	n.Withheld = make(map[uint32]string, len(c.Withheld))
	for nr := range not.All() {
		n.Withheld[nr] = mergeReasons(c.Withheld[nr], "")
	}
	return &n
}

func without(m map[Phase]syscalls.Set, not syscalls.Set) map[Phase]syscalls.Set {
	out := make(map[Phase]syscalls.Set, len(m))
	for phase, set := range m {
		out[phase] = set.Minus(not)
	}
	return out
}
