// SPDX-License-Identifier: Apache-2.0

package judge

import (
	"strings"

	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// table is what the policy says of one ABI, by who asks.
type table struct {
	calls   *policy.Calls
	service syscalls.Set // in any phase, of any role
	roles   map[string]roleSets
	whole   roleSets // the service, where the policy has no roles
	exec    roleSets
}

// roleSets are the calls of one role as they were learned.
type roleSets struct {
	phases [len(policy.Phases)]syscalls.Set
	birth  syscalls.Set
	all    syscalls.Set
	forked bool // generation 1
}

func newTable(calls *policy.Calls) *table {
	t := &table{calls: calls, roles: make(map[string]roleSets, len(calls.Roles)), whole: newRoleSets(calls.Phases, syscalls.Set{})}
	for name, r := range calls.Roles {
		sets := newRoleSets(r.Phases, r.Birth)
		sets.forked = !strings.HasSuffix(name, ":0")
		t.roles[name] = sets
	}
	t.service = t.whole.all
	for phase := range t.exec.phases {
		t.exec.phases[phase] = calls.Exec
	}
	t.exec.all = calls.Exec
	return t
}

func newRoleSets(phases map[policy.Phase]syscalls.Set, birth syscalls.Set) (r roleSets) {
	r.birth, r.all = birth, birth
	for phase, set := range phases {
		if int(phase) < len(r.phases) {
			r.phases[phase] = set
			r.all = r.all.Union(set)
		}
	}
	return r
}

// asker is what is known of who asks. The roles "?:0" and "?:1" are those of many programs. A fork of a program that did
// not fork while it was learned is judged by what that program did: it runs the same code.
func (t *table) asker(q Question) (r roleSets, known, forked bool) {
	switch {
	case q.Lane == observe.LaneExec:
		return t.exec, true, false
	case q.Lane != observe.LaneService || strings.HasPrefix(q.Role, "?:"):
		return roleSets{}, false, false
	case len(t.roles) == 0:
		return t.whole, true, false
	}
	if r, known = t.roles[q.Role]; known {
		return r, true, false
	}
	if path, ok := strings.CutSuffix(q.Role, ":1"); ok {
		r, known = t.roles[path+":0"]
		return r, known, known
	}
	return roleSets{}, false, false
}

// does is what the role does in a phase: what was learned of it, and what the phase repeats or goes on with.
func (r *roleSets) does(phase policy.Phase) syscalls.Set {
	switch run := r.phases[policy.Run]; phase {
	case policy.Boot:
		return r.phases[policy.Boot].Union(r.birth).Union(run)
	case policy.Run:
		return run
	case policy.Reload:
		if r.phases[policy.Reload].Empty() {
			return r.phases[policy.Boot].Union(r.birth).Union(run)
		}
		return r.phases[policy.Reload].Union(run)
	case policy.Stop:
		return r.phases[policy.Stop].Union(run)
	}
	return syscalls.Set{}
}

// onlyBirth reports whether a forked role makes the call when it is new, and never again.
func (r *roleSets) onlyBirth(nr uint32) bool {
	if !r.forked || !r.birth.Has(nr) {
		return false
	}
	for _, set := range r.phases {
		if set.Has(nr) {
			return false
		}
	}
	return true
}

// when the role makes the call, in words; "" if never.
func (r *roleSets) when(nr uint32) string {
	var words []string
	for phase, set := range r.phases {
		if set.Has(nr) {
			words = append(words, during[phase])
		}
	}
	if len(words) == 0 && r.birth.Has(nr) {
		return "while it is starting"
	}
	return strings.Join(words, " and ")
}

var during = [len(policy.Phases)]string{"while booting", "while running", "while reloading", "while stopping"}

func inPhase(p policy.Phase) string {
	if int(p) >= len(during) {
		return "in a phase that is not known"
	}
	return during[p]
}
