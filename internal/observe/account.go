// SPDX-License-Identifier: Apache-2.0

package observe

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// harmless are the loss counters that cost no call and no epoch: what they count makes statistics, argument rules, names
// or reports poorer, which the learner answers by settling later or by leaving a rule out. A counter that is not listed
// here, a future one too, is taken to have lost calls. The names are those of package kernel.
var harmless = []string{"burst", "argument", "role", "denied", "event"}

// Problems says in plain words what observation may have missed; empty when the account balances.
func (a Account) Problems() []string {
	var problems []string
	if a.Late {
		problem := "observation began after the container's start: the calls of its boot are not all known"
		if a.AttachedLate > 0 {
			problem = fmt.Sprintf("observation began %s after the container's start: the calls before that are not known",
				a.AttachedLate.Round(time.Millisecond))
		}
		problems = append(problems, problem)
	}
	if a.Cut != "" {
		problems = append(problems, "observation ended before the container did: "+a.Cut)
	}
	for _, name := range slices.Sorted(maps.Keys(a.Losses)) {
		if n := a.Losses[name]; n > 0 {
			problems = append(problems, fmt.Sprintf("records were lost: %s %d", name, n))
		}
	}
	if a.UnknownNumbers > 0 {
		problems = append(problems, fmt.Sprintf("%d calls had numbers that no kernel has", a.UnknownNumbers))
	}
	if a.Recorded != a.Drained {
		problems = append(problems, fmt.Sprintf("the kernel recorded %d calls and %d were read", a.Recorded, a.Drained))
	}
	if a.IOUring {
		problems = append(problems, "io_uring was used: its operations are seen by no filter and no observer")
	}
	for _, gap := range a.Gaps {
		problems = append(problems, "gap: "+gap)
	}
	return problems
}

// LostCalls reports whether a call, or the time of one, may be missing between the beginning of the observation and its
// end.
func (a Account) LostCalls() bool {
	for name, n := range a.Losses {
		if n > 0 && !slices.Contains(harmless, name) {
			return true
		}
	}
	return a.Recorded != a.Drained || len(a.Gaps) > 0
}

// LostArgs reports whether a value of a recorded argument may be missing.
func (a Account) LostArgs() bool { return a.Late || a.Losses["argument"] > 0 || a.LostCalls() }
