// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"maps"
	"slices"

	"github.com/whittle-sec/whittle/internal/judge"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// trusted is what a container teaches, with what the panel would not have believed in quarantine: somebody may have been
// inside from the first second.
func (b *book) trusted(who key, l Lesson) policy.Policy {
	why := map[syscalls.Call]string{}
	for abi, calls := range l.Policy.ABIs {
		for nr := range calls.All().All() {
			call := syscalls.Call{ABI: abi, Nr: nr}
			if slices.Contains(beforeAnyoneAnswers, call.String()) {
				continue // it cannot be held, so that the panel would never be asked about it again
			}
			runs, of := b.runsWith(who, call)
			if reason := judge.Suspect(call, classOf(l.Origins[call]), runs+1, of+1); reason != "" {
				why[call] = reason
			}
		}
	}
	if len(why) == 0 {
		return l.Policy
	}
	return policy.Quarantine(l.Policy, why)
}

// runsWith counts the other containers of the workload, and those of them that made the call: one is enough, so no more are
// looked for, of hundreds.
func (b *book) runsWith(who key, call syscalls.Call) (runs, of int) {
	made := func(p policy.Policy) bool {
		calls := p.ABIs[call.ABI]
		return calls != nil && calls.Evidence[call.Nr].Runs > 0
	}
	of = len(b.live)
	if _, own := b.live[who]; own {
		of--
	}
	if b.started {
		of += b.base.Account.Runs
		if made(b.base) {
			return 1, of
		}
	}
	for k, p := range b.live {
		if k != who && made(p) {
			return 1, of
		}
	}
	return 0, of
}

// classOf an origin, by the name that observation gave it. A name that the panel does not know is no evidence.
func classOf(name string) (c judge.Class) {
	if c.UnmarshalText([]byte(name)) != nil {
		return judge.Unknown
	}
	return c
}

// doubt is a call that has come into quarantine.
type doubt struct {
	call syscalls.Call
	why  string
}

// doubts are the calls of a container's policy that are in quarantine and were not told of yet. What the workload is
// trusted with is in none (policy.Merge).
func (b *book) doubts(p policy.Policy) (fresh []doubt) {
	for abi, calls := range p.ABIs {
		for _, nr := range slices.Sorted(maps.Keys(calls.Quarantined)) {
			call := syscalls.Call{ABI: abi, Nr: nr}
			if known := b.base.ABIs[abi]; b.told[call] || known != nil && known.All().Has(nr) {
				continue
			}
			if b.told == nil {
				b.told = map[syscalls.Call]bool{}
			}
			b.told[call] = true
			fresh = append(fresh, doubt{call, calls.Quarantined[nr]})
		}
	}
	return fresh
}

// tellDoubts journals what came into quarantine by what a container did.
func (m *model) tellDoubts(c *tracked, fresh []doubt) {
	for _, d := range fresh {
		m.event(kindQuarantined, c, fmt.Sprintf("%s: %s is in quarantine: %s; it is refused unless the panel vouches for it; to trust it: %s",
			c.view.Name, d.call, d.why, fix(c.view.WorkloadName, d.call.String(), "")))
		m.events[len(m.events)-1].Call = d.call.String()
	}
}
