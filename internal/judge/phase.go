// SPDX-License-Identifier: Apache-2.0

package judge

import (
	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/internal/policy"
)

// phase asks when, and to which role, the policy allows the call, and whether that can be now. A reload or a stop counts
// for something by itself: only somebody outside the container begins one, and much of what a service then does it does
// at no other time.
func phase(h *hearing) Vote {
	nr := h.q.Call.Nr
	switch {
	case h.q.Arguments:
		return Vote{Why: "the call is allowed " + inPhase(h.q.Phase) + "; its arguments are what is asked about"}
	case h.q.Lane == observe.LaneExec:
		return Vote{Why: "what was started from outside has no phases"}
	case h.t == nil:
		return Vote{Why: "the policy says nothing about it in any phase"}
	case h.known && h.role.onlyBirth(nr) && !h.q.Birth && h.risk.level >= Sensitive:
		// A new worker gives up its rights once. One that serves and asks again is not a new worker.
		return Vote{Stance: Against, Why: "the role makes it only while it is starting, which it no longer is"}
	case h.known && h.role.all.Has(nr):
		return sameRole(h)
	case h.t.service.Has(nr):
		return otherRole(h)
	case begun(h.q.Phase):
		return Vote{Stance: For, Points: begunOutside,
			Why: "no phase has it, but somebody outside made the service " + verb[h.q.Phase] + ", which brings calls of its own"}
	}
	return Vote{Why: "no phase of the policy has it"}
}

func sameRole(h *hearing) Vote {
	when := h.role.when(h.q.Call.Nr)
	now := h.role.does(h.q.Phase)
	switch {
	case h.forked && now.Has(h.q.Call.Nr) && h.risk.level <= Ordinary:
		return Vote{Stance: For, Points: repeats, Why: "the program that it was forked from makes it " + when}
	case begun(h.q.Phase):
		return Vote{Stance: For, Points: repeats,
			Why: "the role makes it " + when + ", and somebody outside made the service " + verb[h.q.Phase]}
	case h.risk.level >= Grave || opensDoor(h.q.Call):
		// What this is for: a call of the boot that is worth taking away does not come back because it once was there.
		// A service that forks at its boot forks again when a child dies; one that listens has done so.
		return Vote{Why: "the role makes it " + when + ", which is not now"}
	}
	return Vote{Stance: For, Points: elsewhere, Why: "the role makes it " + when + ", not " + inPhase(h.q.Phase) + " as yet"}
}

func otherRole(h *hearing) Vote {
	who := "another role makes it"
	if !h.known {
		who = "some role makes it, and this one is not known"
	}
	// Roles are told apart so that a worker does not have what its master has.
	if begun(h.q.Phase) && h.risk.level <= Ordinary {
		return Vote{Stance: For, Points: begunOutside, Why: who + ", and somebody outside made the service " + verb[h.q.Phase]}
	}
	return Vote{Why: who}
}

func begun(p policy.Phase) bool { return p == policy.Reload || p == policy.Stop }

var verb = map[policy.Phase]string{policy.Reload: "reload", policy.Stop: "stop"}
