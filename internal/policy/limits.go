// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/whittle-sec/whittle/internal/syscalls"
	"github.com/whittle-sec/whittle/internal/workload"
)

// What a policy may hold. A container can fork programs of any number and name while it is learned, and a policy file can
// come from anywhere, so everything that grows with either has an end. Reaching one never makes a policy stricter.
const (
	MaxSize = 8 << 20 // bytes of the JSON form

	maxRoles    = 512 // per ABI; the calls of further ones go to the role "?:0" or "?:1"
	maxRules    = 256 // argument rules per call; a call with more is not constrained
	maxCallers  = 16  // roles named in the evidence of one call
	maxReasons  = 64  // of being partial, and gaps
	maxCounters = 256 // loss counters
	maxText     = 256 // characters of a role, reason or name
)

// Normal is p as it is written: independent of p, within the limits, lists sorted and without repetitions, names
// printable. Merge and Read return normal policies; two normal policies are equal if their JSON is.
func Normal(p Policy) Policy { return normal(p, maxRoles) }

func normal(p Policy, roles int) Policy {
	q := p
	q.Workload.Command = slices.Clone(p.Workload.Command)
	q.Partial = texts(p.Partial, nil, maxReasons)
	q.Complete = p.Complete && len(q.Partial) == 0
	q.Account.Runs = max(p.Account.Runs, 0)
	q.Account.LateRuns = max(p.Account.LateRuns, 0)
	q.Account.Losses = counters(p.Account.Losses)
	q.Account.Gaps = texts(p.Account.Gaps, nil, maxReasons)
	// What could not be computed is read as the worst it can be.
	q.Settled.PUnseen = finite(p.Settled.PUnseen, 1)
	q.Settled.PUnseenEpoch = finite(p.Settled.PUnseenEpoch, 1)
	q.Settled.Missing = finite(p.Settled.Missing, syscalls.MaxNr)
	q.Settled.Reason = strings.Join(reasons(p.Settled.Reason, ""), reasonSeparator)
	q.ABIs = make(map[syscalls.ABI]*Calls, len(p.ABIs))
	for abi, calls := range p.ABIs {
		if calls != nil {
			q.ABIs[abi] = calls.normal(roles)
		}
	}
	return q
}

func (c *Calls) normal(roles int) *Calls {
	c = c.withoutWithheld()
	n := &Calls{
		Phases:      allPhases(c.Phases),
		Floor:       c.Floor,
		Exec:        c.Exec,
		Roles:       boundRoles(c.Roles, roles),
		Withheld:    c.Withheld,
		Quarantined: c.quarantined(),
		Evidence:    make(map[uint32]Evidence, len(c.Evidence)),
		Denied:      make(map[uint32]DeniedCall, len(c.Denied)),
		Args:        make(map[uint32][]ArgRule, len(c.Args)),
	}
	for nr, e := range c.Evidence {
		if nr < syscalls.MaxNr {
			n.Evidence[nr] = e.normal(min(roles, maxCallers))
		}
	}
	for nr, d := range c.Denied {
		if nr < syscalls.MaxNr && d.Errno > 0 && d.Errno <= maxErrno {
			n.Denied[nr] = d
		}
	}
	// Rules of a call that nobody may make would come into force with the call, from a run that knew nothing of it.
	all := c.All()
	for nr, rules := range c.Args {
		rules = sortedRules(rules)
		if all.Has(nr) && len(rules) > 0 && len(rules) <= maxRules {
			n.Args[nr] = rules
		}
	}
	return n
}

func (e Evidence) normal(callers int) Evidence {
	e.Source = workload.Printable(e.Source, maxText)
	e.FirstSeen, e.LastSeen = max(e.FirstSeen, 0), max(e.LastSeen, 0)
	e.Runs = max(e.Runs, 0)
	e.Rate = finite(e.Rate, 0)
	e.Lanes = texts(e.Lanes, nil, maxCallers)
	e.Roles = texts(e.Roles, nil, callers)
	e.Reason = strings.Join(reasons(e.Reason, ""), reasonSeparator)
	return e
}

func allPhases(m map[Phase]syscalls.Set) map[Phase]syscalls.Set {
	all := make(map[Phase]syscalls.Set, len(Phases))
	for _, p := range Phases {
		all[p] = m[p]
	}
	return all
}

// boundRoles keeps the first limit roles in the order of their names and gives the calls of the others to "?". First in
// order, because then merging in any order keeps the same ones.
func boundRoles(m map[string]RoleCalls, limit int) map[string]RoleCalls {
	out := make(map[string]RoleCalls, min(len(m), limit+2))
	add := func(role string, c RoleCalls) { out[role] = out[role].union(c) }
	// Two names may become one by being made printable.
	for role, c := range m {
		add(workload.Printable(role, maxText), c)
	}
	named := slices.DeleteFunc(slices.Sorted(maps.Keys(out)), isOther)
	for i := limit; i < len(named); i++ {
		add(otherRole(named[i]), out[named[i]])
		delete(out, named[i])
	}
	return out
}

func otherRole(role string) string {
	if strings.HasSuffix(role, ":0") {
		return "?:0"
	}
	return "?:1"
}

func isOther(role string) bool { return role == "?:0" || role == "?:1" }

func (r RoleCalls) union(o RoleCalls) RoleCalls {
	u := RoleCalls{Phases: make(map[Phase]syscalls.Set, len(Phases)), Birth: r.Birth.Union(o.Birth)}
	for _, p := range Phases {
		u.Phases[p] = r.Phases[p].Union(o.Phases[p])
	}
	return u
}

func counters(m map[string]uint64) map[string]uint64 {
	out := make(map[string]uint64, len(m))
	for name, n := range m {
		if n > 0 {
			name = workload.Printable(name, maxText)
			out[name] = addCounts(out[name], n)
		}
	}
	// Counters are named by our own BPF programs; a file with more of them is refused by Read.
	for _, name := range slices.Sorted(maps.Keys(out))[min(len(out), maxCounters-1):] {
		if name != "other" {
			out["other"] = addCounts(out["other"], out[name])
			delete(out, name)
		}
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

// texts is the sorted union of two lists of lines, printable, its first limit members.
func texts(a, b []string, limit int) []string {
	var all []string
	for _, s := range slices.Concat(a, b) {
		if s = workload.Printable(s, maxText); s != "" {
			all = append(all, s)
		}
	}
	slices.Sort(all)
	all = slices.Compact(all)
	return all[:min(len(all), limit)]
}

// finite is f, or instead where JSON has no number for it.
func finite(f, instead float64) float64 {
	if math.IsNaN(f) || math.IsInf(f, 0) || f < 0 {
		return instead
	}
	return f
}

const reasonSeparator = "; "

// reasons is the union of two reasons that may already be unions.
func reasons(a, b string) []string {
	return texts(strings.Split(a, reasonSeparator), strings.Split(b, reasonSeparator), 8)
}

func sortedRules(rules []ArgRule) []ArgRule {
	rules = slices.Clone(rules)
	slices.SortFunc(rules, func(a, b ArgRule) int {
		return cmp.Or(cmp.Compare(a.Index, b.Index), cmp.Compare(a.Mask, b.Mask), cmp.Compare(a.Value, b.Value))
	})
	return slices.Compact(rules)
}

// addCounts stops at the largest number: a count that wrapped round would read as few.
func addCounts(a, b uint64) uint64 {
	if sum := a + b; sum >= a {
		return sum
	}
	return ^uint64(0)
}
