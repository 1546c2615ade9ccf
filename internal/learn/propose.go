// SPDX-License-Identifier: Apache-2.0

package learn

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
	"github.com/whittle-sec/whittle/internal/workload"
)

// Propose the policy of a workload of which this one container was observed. r is Analyse's result for the same trace.
func Propose(w workload.Workload, t observe.Trace, r Result) policy.Policy {
	p := policy.Policy{Workload: w, ABIs: map[syscalls.ABI]*policy.Calls{}, Settled: r.Settled}
	if err := t.Validate(); err != nil {
		p.Partial = []string{fmt.Sprintf("the trace is damaged: %v", err)}
		return p
	}
	p.Partial = t.Account.Problems()
	p.Complete = len(p.Partial) == 0
	p.Account = account(t.Account)
	p.Settled.Reason = strings.Join(append([]string{r.Settled.Reason}, r.Notes...), "; ") // the separator of package policy

	proposeSets(&p, t, r)
	for _, m := range newSeries(t).made {
		calls := abi(&p, m.call.ABI)
		calls.Evidence[m.call.Nr] = evidence(calls.Evidence[m.call.Nr], t, r.Cut, m)
	}
	for nr, roles := range rolesOf(t) {
		e := p.ABIs[nr.ABI].Evidence[nr.Nr]
		e.Roles = roles
		p.ABIs[nr.ABI].Evidence[nr.Nr] = e
	}
	proposeDenied(&p, t)
	proposeArgs(&p, t)
	return p
}

// abi makes room for an ABI. Every phase has a set, so that an empty one is seen to be empty.
func abi(p *policy.Policy, a syscalls.ABI) *policy.Calls {
	calls := p.ABIs[a]
	if calls == nil {
		calls = &policy.Calls{
			Phases:   map[policy.Phase]syscalls.Set{},
			Roles:    map[string]policy.RoleCalls{},
			Evidence: map[uint32]policy.Evidence{},
			Denied:   map[uint32]policy.DeniedCall{},
			Args:     map[uint32][]policy.ArgRule{},
		}
		for _, phase := range policy.Phases {
			calls.Phases[phase] = syscalls.Set{}
		}
		p.ABIs[a] = calls
	}
	return calls
}

func proposeSets(p *policy.Policy, t observe.Trace, r Result) {
	for a, byPhase := range r.Sets {
		maps.Copy(abi(p, a).Phases, byPhase)
	}
	lost := t.Account.LostCalls()
	for _, cell := range t.Cells {
		for _, seen := range cell.Calls {
			calls := abi(p, seen.Call.ABI)
			switch cell.Lane {
			case observe.LaneExec:
				calls.Exec.Add(seen.Call.Nr)
			case observe.LaneRuntime:
				calls.Floor.Add(seen.Call.Nr)
			case observe.LaneService:
				key := roleKey(cell.Role)
				role := calls.Roles[key]
				if role.Phases == nil {
					role.Phases = map[policy.Phase]syscalls.Set{}
				}
				if cell.Birth {
					role.Birth.Add(seen.Call.Nr)
				} else {
					for phase := range r.Cut.phasesOf(seen.Call, seen.Epochs, lost) {
						set := role.Phases[phase]
						set.Add(seen.Call.Nr)
						role.Phases[phase] = set
					}
				}
				calls.Roles[key] = role
			}
		}
	}
}

// roleKey is "PATH:GENERATION".
func roleKey(r observe.Role) string { return policy.RoleKey(r.Exe, r.Generation) }

func proposeDenied(p *policy.Policy, t observe.Trace) {
	most := map[syscalls.Call]uint64{} // of one errno
	for _, d := range t.Denied {
		if d.Errno <= 0 {
			continue // TRAP and KILL have none; what they stop does not go on
		}
		calls := abi(p, d.Call.ABI)
		denied := calls.Denied[d.Call.Nr]
		denied.Count += d.Count
		if d.Count > most[d.Call] || d.Count == most[d.Call] && (denied.Errno == 0 || d.Errno < denied.Errno) {
			most[d.Call] = d.Count
			denied.Errno = d.Errno
		}
		calls.Denied[d.Call.Nr] = denied
	}
}

func account(a observe.Account) policy.Account {
	sum := policy.Account{
		Runs:           1,
		UnknownNumbers: a.UnknownNumbers,
		Recorded:       a.Recorded,
		Drained:        a.Drained,
		IOUring:        a.IOUring,
		Gaps:           slices.Clone(a.Gaps),
	}
	if a.Late || a.Cut != "" {
		sum.LateRuns = 1
	}
	for name, n := range a.Losses {
		if n == 0 {
			continue
		}
		if sum.Losses == nil {
			sum.Losses = map[string]uint64{}
		}
		sum.Losses[name] = n
	}
	return sum
}
