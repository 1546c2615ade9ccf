// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/whittle-sec/whittle/internal/syscalls"
)

// Scope is which part of a policy a change is in.
type Scope string

// The scopes in the order in which changes are listed.
const (
	ScopePhase       Scope = "phase"       // the service lane
	ScopeFloor       Scope = "floor"       // the runtime lane
	ScopeExec        Scope = "exec"        // the exec lane
	ScopeRole        Scope = "role"        // the service lane by role
	ScopeArgs        Scope = "args"        // argument rules
	ScopeDenied      Scope = "denied"      // refused while learning
	ScopeWithheld    Scope = "withheld"    // by a person
	ScopeQuarantined Scope = "quarantined" // seen while learning, and not trusted
)

var scopes = []Scope{ScopePhase, ScopeFloor, ScopeExec, ScopeRole, ScopeArgs, ScopeDenied, ScopeWithheld, ScopeQuarantined}

// Change is one line of a difference.
type Change struct {
	Added bool         `json:"added"` // in b and not in a; else the other way round
	ABI   syscalls.ABI `json:"abi"`
	Call  string       `json:"call"`
	Scope Scope        `json:"scope"`
	Phase string       `json:"phase,omitempty"` // of a phase or role: "boot" …; of a role also "birth"
	Role  string       `json:"role,omitempty"`
	Rule  *ArgRule     `json:"rule,omitempty"` // the rule that was added or removed
	Errno int32        `json:"errno,omitempty"`
	// Evidence for the call on the side that has it.
	Evidence Evidence `json:"evidence"`
}

// Diff lists what b has and a has not, and the other way round, in a fixed order: ABI, scope, role, phase, name.
// Evidence alone is no difference.
func Diff(a, b Policy) []Change {
	a, b = Normal(a), Normal(b)
	var changes []Change
	for _, abi := range syscalls.ABIs {
		d := differ{abi: abi, a: orEmpty(a.ABIs[abi]), b: orEmpty(b.ABIs[abi])}
		d.calls()
		slices.SortStableFunc(d.changes, compareChanges)
		changes = append(changes, d.changes...)
	}
	return changes
}

func orEmpty(c *Calls) *Calls {
	if c == nil {
		return &Calls{}
	}
	return c
}

func compareChanges(x, y Change) int {
	phase := func(c Change) int { return slices.Index([]string{"boot", "run", "reload", "stop", "birth"}, c.Phase) }
	return cmp.Or(
		cmp.Compare(slices.Index(scopes, x.Scope), slices.Index(scopes, y.Scope)),
		cmp.Compare(x.Role, y.Role), cmp.Compare(phase(x), phase(y)), cmp.Compare(x.Call, y.Call))
}

type differ struct {
	abi     syscalls.ABI
	a, b    *Calls
	changes []Change
}

func (d *differ) calls() {
	for _, phase := range Phases {
		d.sets(Change{Scope: ScopePhase, Phase: phase.String()}, d.a.Phases[phase], d.b.Phases[phase])
	}
	d.sets(Change{Scope: ScopeFloor}, d.a.Floor, d.b.Floor)
	d.sets(Change{Scope: ScopeExec}, d.a.Exec, d.b.Exec)
	roles := maps.Clone(d.a.Roles)
	if roles == nil {
		roles = make(map[string]RoleCalls)
	}
	maps.Copy(roles, d.b.Roles)
	for role := range roles {
		ra, rb := d.a.Roles[role], d.b.Roles[role]
		for _, phase := range Phases {
			d.sets(Change{Scope: ScopeRole, Role: role, Phase: phase.String()}, ra.Phases[phase], rb.Phases[phase])
		}
		d.sets(Change{Scope: ScopeRole, Role: role, Phase: "birth"}, ra.Birth, rb.Birth)
	}
	d.sets(Change{Scope: ScopeWithheld}, d.a.withheld(), d.b.withheld())
	d.sets(Change{Scope: ScopeQuarantined}, numbersOf(d.a.Quarantined), numbersOf(d.b.Quarantined))
	for nr := range syscalls.SetOf(slices.Concat(keys(d.a.Args), keys(d.b.Args))...).All() {
		d.rules(nr)
	}
	for nr := range syscalls.SetOf(slices.Concat(keys(d.a.Denied), keys(d.b.Denied))...).All() {
		if was, is := d.a.Denied[nr].Errno, d.b.Denied[nr].Errno; was != is {
			d.side(Change{Scope: ScopeDenied, Errno: was}, nr, was != 0, false)
			d.side(Change{Scope: ScopeDenied, Errno: is}, nr, is != 0, true)
		}
	}
}

func keys[V any](m map[uint32]V) []uint32 { return slices.Collect(maps.Keys(m)) }

func (d *differ) sets(c Change, a, b syscalls.Set) {
	for nr := range a.Minus(b).All() {
		d.side(c, nr, true, false)
	}
	for nr := range b.Minus(a).All() {
		d.side(c, nr, true, true)
	}
}

func (d *differ) rules(nr uint32) {
	ra, rb := d.a.Args[nr], d.b.Args[nr]
	for _, r := range ra {
		d.side(Change{Scope: ScopeArgs, Rule: &r}, nr, !slices.Contains(rb, r), false)
	}
	for _, r := range rb {
		d.side(Change{Scope: ScopeArgs, Rule: &r}, nr, !slices.Contains(ra, r), true)
	}
}

func (d *differ) side(c Change, nr uint32, differs, added bool) {
	if !differs {
		return
	}
	c.ABI, c.Call, c.Added = d.abi, syscalls.Name(d.abi, nr), added
	c.Evidence = d.a.Evidence[nr]
	if added {
		c.Evidence = d.b.Evidence[nr]
	}
	d.changes = append(d.changes, c)
}

// String is the change on one line, for instance "+ execve  run  seen 3× by /bin/sh:0".
func (c Change) String() string {
	parts := []string{"- " + c.Call, c.where()}
	if c.Added {
		parts[0] = "+ " + c.Call
	}
	if native := c.ABI == syscalls.X86_64 || c.ABI == syscalls.ARM64; !native {
		parts[0] += " (" + c.ABI.String() + ")"
	}
	byEvidence := !slices.Contains([]Scope{ScopeArgs, ScopeDenied, ScopeWithheld}, c.Scope)
	if byEvidence {
		if how := c.Evidence.brief(); how != "" {
			parts = append(parts, how)
		}
	}
	return strings.Join(parts, "  ")
}

func (c Change) where() string {
	switch c.Scope {
	case ScopePhase:
		return c.Phase
	case ScopeRole:
		return c.Phase + " of " + c.Role
	case ScopeArgs:
		return "rule: " + c.Rule.String()
	case ScopeDenied:
		return "denied with " + errnoName(c.Errno)
	}
	return string(c.Scope)
}

// String is the rule in words, for instance "argument 0 = 0x2".
func (r ArgRule) String() string {
	if r.Mask == ^uint64(0) {
		return fmt.Sprintf("argument %d = %#x", r.Index, r.Value)
	}
	return fmt.Sprintf("argument %d & %#x = %#x", r.Index, r.Mask, r.Value)
}

// brief is the evidence in a few words, or "" where there is none.
func (e Evidence) brief() string {
	var by string
	if len(e.Roles) > 0 {
		by = " by " + e.Roles[0]
	}
	if more := len(e.Roles) - 1; more > 0 {
		by += fmt.Sprintf(" and %d more", more)
	}
	switch {
	case e.Count > 0:
		return fmt.Sprintf("seen %d×%s", e.Count, by)
	case e.Reason != "":
		return e.Source + ": " + e.Reason
	}
	return e.Source
}

// errnoName covers what seccomp filters answer in practice.
func errnoName(errno int32) string {
	switch errno {
	case EPERM:
		return "EPERM"
	case ENOSYS:
		return "ENOSYS"
	case 13:
		return "EACCES"
	case 22:
		return "EINVAL"
	}
	return fmt.Sprintf("errno %d", errno)
}
