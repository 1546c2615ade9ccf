// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"strings"

	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// role is what a role may, by the phase of the container, and in its births beyond that.
type role struct {
	serving [len(policy.Phases)]syscalls.Set
	birth   syscalls.Set
}

// makeRoles from the policy's, so that an answer is a few tests of bits.
func (t *table) makeRoles(reloaded bool) {
	t.roles = make(map[string]role, len(t.calls.Roles))
	for name, learned := range t.calls.Roles {
		if isOther(name) {
			// The roles of programs that nobody could name share this one.
			t.byRole = t.byRole.Union(roleAll(learned))
			continue
		}
		// The sets of the policy bound those of its roles: a file need not agree with itself.
		birth := learned.Birth.Intersect(t.service)
		// A new process of generation 0 reads its configuration in its birth, and again when it reloads; a forked one
		// that has to begin anew is a new one.
		again := birth
		if !strings.HasSuffix(name, ":0") {
			again = syscalls.Set{}
		}
		t.roles[name] = t.compose(learned.Phases, birth, again, reloaded)
		t.byRole = t.byRole.Union(roleAll(learned))
	}
	t.unknown = t.common()
	t.whole = t.compose(t.calls.Phases, syscalls.Set{}, syscalls.Set{}, reloaded)
}

// compose the sets of the phases as they are answered: what is learned of a phase, and what follows from others. again is
// what of its births a role may repeat in a reload that was never learned.
func (t *table) compose(learned map[policy.Phase]syscalls.Set, birth, again syscalls.Set, reloaded bool) (r role) {
	var all syscalls.Set
	for _, set := range learned {
		all = all.Union(set)
	}
	run := learned[policy.Run]
	r.birth = birth
	// Every phase goes on serving; and the end of a boot is seen late, when the service may have served for a while.
	r.serving[policy.Boot] = learned[policy.Boot].Union(birth).Union(run)
	r.serving[policy.Run] = run
	r.serving[policy.Reload] = learned[policy.Reload].Union(run)
	if !reloaded {
		r.serving[policy.Reload] = learned[policy.Boot].Union(again).Union(run)
	}
	r.serving[policy.Stop] = learned[policy.Stop].Union(run)
	// A thread may have been asleep in one of these since another phase; the kernel makes the call again when it is woken.
	asleep := all.Union(birth).Intersect(t.class.waits)
	for phase := range r.serving {
		r.serving[phase] = r.serving[phase].Union(asleep).Intersect(t.service)
	}
	return r
}

// common is what every known role may that may anything in a phase.
func (t *table) common() (r role) {
	intersect := func(of func(role) syscalls.Set) (s syscalls.Set) {
		first := true
		for _, known := range t.roles {
			set := of(known)
			switch {
			case set.Empty():
			case first:
				s, first = set, false
			default:
				s = s.Intersect(set)
			}
		}
		return s
	}
	for i := range r.serving {
		r.serving[i] = intersect(func(k role) syscalls.Set { return k.serving[i] })
	}
	// No phase takes away what running gives, and none gives more than every role has: a role that does nothing while
	// running, and something in a reload, takes it from what is common while running.
	for i := range r.serving {
		r.serving[policy.Run] = r.serving[policy.Run].Intersect(r.serving[i])
	}
	r.birth = intersect(func(k role) syscalls.Set { return k.birth })
	return r
}

func roleAll(r policy.RoleCalls) syscalls.Set {
	s := r.Birth
	for _, set := range r.Phases {
		s = s.Union(set)
	}
	return s
}

// isOther are the roles that package policy gives the calls of roles beyond its limit to, and package observe those of
// programs whose path it could not read.
func isOther(name string) bool { return name == "?:0" || name == "?:1" }
