// SPDX-License-Identifier: Apache-2.0

package judge

import (
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// hidden are calls that can more than those they replace, where no filter and no supervisor can look: their flags are in
// memory. openat2 is not among them: its flags only narrow what openat does.
var hidden = map[string]bool{"clone3": true}

// equivalent asks whether the role may do the same under another number. Then nothing is gained by the call that the role
// does not have: a new version of the C library asks for it.
func equivalent(h *hearing) Vote {
	if h.q.Arguments {
		return Vote{Why: "it is the arguments that are new, not the call"}
	}
	if h.t == nil || !h.known {
		return Vote{Why: "whether the asker may do the same under another number is not known"}
	}
	same := syscalls.Equivalents(h.q.Call)
	if h.q.Call.Nr < syscalls.MaxNr {
		same.Remove(h.q.Call.Nr)
	}
	here, anywhere := same.Intersect(h.role.does(h.q.Phase)), same.Intersect(h.role.all)
	if h.role.forked && !h.q.Birth {
		anywhere = withoutBirths(&h.role, anywhere)
	}
	name := h.q.Call.String()
	switch {
	case hidden[name] && !here.Union(anywhere).Empty():
		return Vote{Why: first(h, here.Union(anywhere)) + " does the same, but the flags of " + name + " are where nobody can look"}
	case !here.Empty() && h.narrowed(here):
		return Vote{Stance: For, Points: sameElsewhere,
			Why: first(h, here) + " does the same and is allowed " + inPhase(h.q.Phase) + ", but not with all arguments"}
	case !here.Empty():
		return Vote{Stance: For, Points: sameHere, Why: first(h, here) + " does the same and is allowed " + inPhase(h.q.Phase)}
	case anywhere.Empty():
		return Vote{Why: "nothing that the role may do does the same"}
	case h.risk.level >= Grave:
		return Vote{Why: first(h, anywhere) + " does the same, but not " + inPhase(h.q.Phase)}
	}
	nr := least(anywhere)
	return Vote{Stance: For, Points: sameElsewhere, Why: first(h, anywhere) + " does the same, and the role makes it " + h.role.when(nr)}
}

func withoutBirths(r *roleSets, s syscalls.Set) syscalls.Set {
	for nr := range s.All() {
		if r.onlyBirth(nr) {
			s.Remove(nr)
		}
	}
	return s
}

// narrowed reports whether every one of the calls is allowed with some arguments only. The one that is asked about would
// come without such rules, unless its own arguments have been looked at.
func (h *hearing) narrowed(s syscalls.Set) bool {
	if h.risk.byArgs {
		return false
	}
	for nr := range s.All() {
		if len(h.t.calls.Args[nr]) == 0 {
			return false
		}
	}
	return true
}

func least(s syscalls.Set) uint32 {
	for nr := range s.All() {
		return nr
	}
	return 0
}

func first(h *hearing, s syscalls.Set) string { return syscalls.Name(h.q.Call.ABI, least(s)) }
