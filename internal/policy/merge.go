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

// Merge is what a and b allow together: replicas and restarts of a workload add. Nothing that either allows, with whatever
// arguments, is refused by the result, except what a person withheld from one of them, which is withheld from both. It is
// complete only if both are, with one exception: a run that was observed
// late or not to its end, and missed nothing else, does not make a policy partial that has a whole run behind it.
//
// A call that one side trusts and the other has quarantined is trusted: once a run could be trusted with it, somebody who
// gets in later must not take it from the service by making it from where nobody would. Merging does not know which side
// was first, so the reverse holds too: a run that nothing is said against brings a call back that an earlier one had in
// quarantine. What must not come back so has to be quarantined in each run anew, before it is merged (judge.Suspect does
// that), or withheld by a person. What comes back does so in the phases and for the roles of the side that trusts it.
//
// Merging is commutative and, but for the estimates and words of Settled, and for the arguments that the floor may make a call with
// which a person has withheld, associative, and merging a policy with itself changes its counts only. The result is in normal form and independent of both.
//
// A window in which events were lost can only have made one side too small, so it never takes anything from the other.
func Merge(a, b Policy) Policy {
	a, b = Normal(a), Normal(b)
	m := Policy{
		Workload: mergeWorkload(a.Workload, b.Workload),
		Partial:  append(a.Partial, b.Partial...),
		Account:  mergeAccount(a.Account, b.Account),
		ABIs:     a.ABIs,
		Settled:  mergeSettled(a, b),
	}
	if late := m.Account.LateRuns; late < m.Account.Runs || late == 0 {
		m.Complete = sound(a) && sound(b) // before their lists, which m shares, are changed
		m.Partial = slices.DeleteFunc(m.Partial, isLate)
	}
	for abi, calls := range b.ABIs {
		if mine := m.ABIs[abi]; mine != nil {
			calls = mergeCalls(mine, calls)
		}
		m.ABIs[abi] = calls
	}
	return Normal(m)
}

// mergeWorkload takes the known one; between two, the same whatever the order.
func mergeWorkload(a, b workload.Workload) workload.Workload {
	switch {
	case isZero(a):
		return b
	case isZero(b):
		return a
	case compareWorkloads(a, b) > 0:
		return b
	}
	return a
}

func isZero(w workload.Workload) bool { return w.Image == "" && w.Digest == "" && len(w.Command) == 0 }

func compareWorkloads(a, b workload.Workload) int {
	return cmp.Or(cmp.Compare(a.ID(), b.ID()), cmp.Compare(a.Image, b.Image), cmp.Compare(a.Digest, b.Digest),
		slices.Compare(a.Command, b.Command))
}

func mergeAccount(a, b Account) Account {
	return Account{
		Runs:           addInts(a.Runs, b.Runs),
		LateRuns:       addInts(a.LateRuns, b.LateRuns),
		Losses:         mergeMaps(a.Losses, b.Losses, addCounts),
		UnknownNumbers: addCounts(a.UnknownNumbers, b.UnknownNumbers),
		Recorded:       addCounts(a.Recorded, b.Recorded),
		Drained:        addCounts(a.Drained, b.Drained),
		IOUring:        a.IOUring || b.IOUring,
		Gaps:           append(a.Gaps, b.Gaps...),
	}
}

// LateReason and CutReason begin the reasons for which a policy is partial when none of its containers was observed from
// its first call to its last.
const (
	LateReason = "observation began "
	CutReason  = "observation ended "
)

func isLate(reason string) bool {
	return strings.HasPrefix(reason, LateReason) || strings.HasPrefix(reason, CutReason)
}

// sound policies missed nothing but, at most, the start or the end of a container.
func sound(p Policy) bool {
	other := func(reason string) bool { return !isLate(reason) }
	return p.Complete || len(p.Partial) > 0 && !slices.ContainsFunc(p.Partial, other)
}

// mergeSettled lets the answer of a side stand that has every call of the other: what a replica did has not been new to it.
// Otherwise it keeps the less certain of the two until the learner has counted again.
func mergeSettled(a, b Policy) Settled {
	sa, sb := a.Settled, b.Settled
	newInA, newInB := !covers(b, a), !covers(a, b)
	m := Settled{
		PUnseen:      max(sa.PUnseen, sb.PUnseen),
		PUnseenEpoch: max(sa.PUnseenEpoch, sb.PUnseenEpoch),
		Missing:      max(sa.Missing, sb.Missing),
		Reason:       lessSure(sa, sb).Reason,
	}
	if hasRun(a) == hasRun(b) { // the units of a job are not those of a service
		m.PUnseen = together(sample{sa.PUnseen, sa.Bursts, newInA}, sample{sb.PUnseen, sb.Bursts, newInB})
		m.PUnseenEpoch = together(sample{sa.PUnseenEpoch, sa.Epochs, newInA}, sample{sb.PUnseenEpoch, sb.Epochs, newInB})
	}
	standsA, standsB := sa.Settled && !newInB, sb.Settled && !newInA
	switch {
	case standsA && standsB:
		m.Settled = true
	case standsA:
		m = sa
	case standsB:
		m = sb
	}
	m.Bursts, m.Epochs = addCounts(sa.Bursts, sb.Bursts), addCounts(sa.Epochs, sb.Epochs)
	return m
}

// lessSure is the answer that has the longer way to go.
func lessSure(a, b Settled) Settled {
	if cmp.Or(cmp.Compare(a.PUnseenEpoch, b.PUnseenEpoch), cmp.Compare(a.PUnseen, b.PUnseen), cmp.Compare(a.Reason, b.Reason)) > 0 {
		return a
	}
	return b
}

// sample of units (bursts or epochs), and what was estimated of it: p is (alone+1)/(units+1), where a unit is alone that has
// a call which no other has.
type sample struct {
	p     float64
	units uint64
	fresh bool // it has a call that the other sample has not
}

// alone units, as far as the other sample leaves them alone: one that has no call of its own has no such unit.
func (s sample) alone(other sample) float64 {
	if other.units > 0 && !s.fresh {
		return 0
	}
	return max(0, s.p*(float64(s.units)+1)-1)
}

// together is the same estimate of both samples, from above: a unit that is alone among all was alone among its own.
func together(a, b sample) float64 {
	return min(1, (a.alone(b)+b.alone(a)+1)/(float64(a.units)+float64(b.units)+1))
}

func hasRun(p Policy) bool {
	for _, calls := range p.ABIs {
		if !calls.Phases[Run].Empty() {
			return true
		}
	}
	return false
}

// covers reports whether a has every call of b's service in the same phase. A call that a person has withheld stands for itself in
// every phase, and for the person's word: merging takes it out of the phases, and what covers what must not depend on when.
func covers(a, b Policy) bool {
	for abi, calls := range b.ABIs {
		mine := a.ABIs[abi]
		if mine == nil {
			mine = &Calls{}
		}
		withheld := mine.withheld()
		if !withheld.Contains(calls.withheld()) {
			return false
		}
		for phase, set := range calls.Phases {
			if !mine.Phases[phase].Union(withheld).Contains(set) {
				return false
			}
		}
	}
	return true
}

func mergeCalls(a, b *Calls) *Calls {
	m := &Calls{
		Phases:      mergeMaps(a.Phases, b.Phases, syscalls.Set.Union),
		Floor:       a.Floor.Union(b.Floor),
		Exec:        a.Exec.Union(b.Exec),
		Roles:       mergeMaps(a.Roles, b.Roles, RoleCalls.union),
		Evidence:    mergeMaps(a.Evidence, b.Evidence, mergeEvidence),
		Denied:      mergeMaps(a.Denied, b.Denied, mergeDenied),
		Withheld:    mergeMaps(a.Withheld, b.Withheld, mergeReasons),
		Quarantined: mergeMaps(a.Quarantined, b.Quarantined, mergeReasons),
		Args:        make(map[uint32][]ArgRule),
	}
	for _, nr := range slices.Concat(slices.Collect(maps.Keys(a.Args)), slices.Collect(maps.Keys(b.Args))) {
		if rules := mergeRules(nr, a, b); len(rules) > 0 {
			m.Args[nr] = rules
		}
	}
	return m
}

// mergeRules of one call. A side that allows the call with any arguments takes the rules away; a side that does not have
// the call says nothing about its arguments. Of two sides with rules, an index that only one constrains is not constrained:
// joining the lists would demand both conditions of both.
func mergeRules(nr uint32, a, b *Calls) []ArgRule {
	ra, rb := a.Args[nr], b.Args[nr]
	switch {
	case len(ra) == 0 && a.All().Has(nr), len(rb) == 0 && b.All().Has(nr):
		return nil
	case len(ra) == 0:
		return rb
	case len(rb) == 0:
		return ra
	}
	var rules []ArgRule
	for _, r := range slices.Concat(ra, rb) {
		same := func(o ArgRule) bool { return o.Index == r.Index }
		if slices.ContainsFunc(ra, same) && slices.ContainsFunc(rb, same) {
			rules = append(rules, r)
		}
	}
	return rules
}

// All is every call of every lane, phase and role.
func (c *Calls) All() syscalls.Set { return c.Floor.Union(c.beyondFloor()) }

func (c *Calls) beyondFloor() syscalls.Set {
	set := c.Exec
	for _, s := range c.Phases {
		set = set.Union(s)
	}
	for _, r := range c.Roles {
		set = set.Union(r.Birth)
		for _, s := range r.Phases {
			set = set.Union(s)
		}
	}
	return set
}

func mergeEvidence(a, b Evidence) Evidence {
	m := Evidence{
		Source: strongerSource(a.Source, b.Source),
		Count:  addCounts(a.Count, b.Count),
		Phases: a.Phases.plus(b.Phases),
		Lanes:  append(a.Lanes, b.Lanes...),
		Roles:  append(a.Roles, b.Roles...),
		Rate:   max(a.Rate, b.Rate),
		Runs:   addInts(a.Runs, b.Runs),
		Reason: mergeReasons(a.Reason, b.Reason),
	}
	switch {
	// What was never counted has no times: its zeros are not the start of a container.
	case a.Count == 0 && b.Count > 0:
		m.FirstSeen, m.LastSeen = b.FirstSeen, b.LastSeen
	case b.Count == 0 && a.Count > 0:
		m.FirstSeen, m.LastSeen = a.FirstSeen, a.LastSeen
	default:
		m.FirstSeen, m.LastSeen = min(a.FirstSeen, b.FirstSeen), max(a.LastSeen, b.LastSeen)
	}
	return m
}

// sources in the order of what they prove: having been seen proves most.
var sources = []string{"quarantined", "kernel", "floor", "inferred", "granted", "observed"}

func strongerSource(a, b string) string {
	if cmp.Or(cmp.Compare(slices.Index(sources, a), slices.Index(sources, b)), cmp.Compare(a, b)) < 0 {
		return b
	}
	return a
}

func mergeReasons(a, b string) string { return strings.Join(reasons(a, b), reasonSeparator) }

// mergeDenied prefers ENOSYS: the workload was seen to live with it.
func mergeDenied(a, b DeniedCall) DeniedCall {
	m := DeniedCall{Errno: min(a.Errno, b.Errno), Count: addCounts(a.Count, b.Count)}
	if a.Errno == ENOSYS || b.Errno == ENOSYS {
		m.Errno = ENOSYS
	}
	return m
}

func mergeMaps[K comparable, V any](a, b map[K]V, both func(a, b V) V) map[K]V {
	m := make(map[K]V, max(len(a), len(b)))
	maps.Copy(m, a)
	for k, v := range b {
		if mine, ok := m[k]; ok {
			v = both(mine, v)
		}
		m[k] = v
	}
	return m
}

func addInts(a, b int) int { return int(min(addCounts(uint64(a), uint64(b)), math.MaxInt32)) }
