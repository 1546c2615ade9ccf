// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"maps"
	"slices"

	"github.com/whittle-sec/whittle/internal/cve"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// Guard is what may be learned from a container that runs under a trusted policy and is refused nothing (shadow): p without
// the risky calls that the trusted policy does not have in the same phase, role or lane, and without other arguments where
// that one limits them. A call is risky when known vulnerabilities are reached through it, or when it is critical. Somebody who is inside must not be able to teach the
// policy what he needs by doing it; a person can (policy.Grant). What the trusted policy has in quarantine stays there.
//
// Phases that the trusted policy has nothing of are taken as they are: only somebody outside can begin a reload or a stop.
func Guard(p, trusted policy.Policy) policy.Policy {
	q := policy.Quarantine(p, quarantined(trusted))
	for abi, calls := range q.ABIs {
		known := trusted.ABIs[abi]
		if known == nil {
			delete(q.ABIs, abi) // numbers of another architecture are a known way around filters
			continue
		}
		risky := riskyCalls(abi)
		calls.Phases = guardPhases(calls.Phases, known.Phases, risky)
		calls.Exec = guardSet(calls.Exec, known.Exec, risky)
		for role, r := range calls.Roles {
			trustedRole, ok := known.Roles[role]
			if !ok {
				// A program that was never seen: what it does belongs to the phases, as far as these have it.
				trustedRole = policy.RoleCalls{Phases: known.Phases}
			}
			r.Phases = guardPhases(r.Phases, trustedRole.Phases, risky)
			r.Birth = guardSet(r.Birth, trustedRole.Birth, risky)
			calls.Roles[role] = r
		}
		all := calls.All()
		// Other arguments are as easily taught as other calls.
		for nr, rules := range known.Args {
			if all.Has(nr) {
				calls.Args[nr] = slices.Clone(rules)
			}
		}
		for nr := range calls.Quarantined {
			all.Add(nr)
		}
		maps.DeleteFunc(calls.Evidence, func(nr uint32, _ policy.Evidence) bool { return !all.Has(nr) })
	}
	return policy.Normal(q)
}

func quarantined(p policy.Policy) map[syscalls.Call]string {
	why := make(map[syscalls.Call]string)
	for abi, calls := range p.ABIs {
		for nr, reason := range calls.Quarantined {
			why[syscalls.Call{ABI: abi, Nr: nr}] = reason
		}
	}
	return why
}

func guardPhases(m, trusted map[policy.Phase]syscalls.Set, risky syscalls.Set) map[policy.Phase]syscalls.Set {
	out := make(map[policy.Phase]syscalls.Set, len(m))
	for phase, set := range m {
		if known := trusted[phase]; !known.Empty() || phase == policy.Boot || phase == policy.Run {
			set = guardSet(set, known, risky)
		}
		out[phase] = set
	}
	return out
}

func guardSet(set, trusted, risky syscalls.Set) syscalls.Set { return set.Minus(risky.Minus(trusted)) }

func riskyCalls(abi syscalls.ABI) syscalls.Set {
	risky := cve.Gated(abi)
	for nr := range syscalls.Known(abi).All() {
		if Critical(syscalls.Call{ABI: abi, Nr: nr}) != "" {
			risky.Add(nr)
		}
	}
	return risky.Minus(syscalls.KernelOwn(abi))
}
