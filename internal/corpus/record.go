// SPDX-License-Identifier: Apache-2.0

package corpus

import (
	"cmp"
	"slices"
	"strings"

	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// FromTrace takes from a trace what a corpus keeps: the roles and the bursts of the service's lane. Calls without a name and
// of a foreign ABI are left out.
func FromTrace(t observe.Trace) (roles []Role, bursts []Burst) {
	return rolesOf(t), burstsOf(t)
}

func rolesOf(t observe.Trace) (out []Role) {
	type key struct {
		role  observe.Role
		stage observe.Stage
	}
	calls := map[key]syscalls.Set{}
	for _, cell := range t.Cells {
		if cell.Lane != observe.LaneService {
			continue
		}
		for _, seen := range cell.Calls {
			if seen.Call.ABI != t.Arch {
				continue
			}
			for _, e := range seen.Epochs {
				k := key{cell.Role, t.Epochs[e.Epoch()].Stage}
				set := calls[k]
				set.Add(seen.Call.Nr)
				calls[k] = set
			}
		}
	}
	for k, set := range calls {
		if names := named(t.Arch, set); len(names) > 0 {
			out = append(out, Role{Exe: k.role.Exe, Generation: k.role.Generation, Stage: k.stage, Calls: names})
		}
	}
	slices.SortFunc(out, Role.compare)
	return out
}

func burstsOf(t observe.Trace) (out []Burst) {
	type key struct {
		set   syscalls.Set
		stage observe.Stage
	}
	counts := map[key]uint64{}
	for _, b := range t.Bursts {
		if t.Cells[b.Cell].Lane != observe.LaneService || b.ABI != t.Arch {
			continue
		}
		for _, e := range b.Epochs {
			counts[key{syscalls.SetOf(b.Calls...), b.Stage}] += e.Count()
		}
	}
	for k, count := range counts {
		if names := named(t.Arch, k.set); len(names) > 0 && count > 0 {
			out = append(out, Burst{Stage: k.stage, Calls: names, Count: count})
		}
	}
	slices.SortFunc(out, Burst.compare)
	return out
}

// named are the names of the calls that have one, sorted.
func named(abi syscalls.ABI, set syscalls.Set) []string {
	return set.Intersect(syscalls.Known(abi)).Names(abi)
}

func (r Role) compare(o Role) int {
	return cmp.Or(strings.Compare(r.Exe, o.Exe), cmp.Compare(r.Generation, o.Generation), cmp.Compare(r.Stage, o.Stage),
		slices.Compare(r.Calls, o.Calls))
}

func (b Burst) compare(o Burst) int {
	return cmp.Or(cmp.Compare(b.Stage, o.Stage), slices.Compare(b.Calls, o.Calls), cmp.Compare(b.Count, o.Count))
}
