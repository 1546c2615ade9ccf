// SPDX-License-Identifier: Apache-2.0

package ward

import (
	"github.com/whittle-sec/whittle/internal/judge"
	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/internal/plan"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/supervise"
)

// loopless is why a time loop is not asked about a call that the panel refuses, or "". An oracle tells whether a call is
// reached without memory being corrupted; whether what it does belongs here is another question.
func loopless(x hearing, c judge.Case) string {
	// Whether a program may be started is what oracles are for; how strong one has to be, the loop knows.
	if why := judge.Never(x.held.Call); why != "" && !judge.StartsProgram(x.held.Call) {
		return why
	}
	if why := judge.Injected(c.Evidence.Origin); why != "" {
		return why
	}
	switch {
	case x.answer.Withheld:
		return "a person took it away"
	case x.answer.Arguments:
		return "it learns calls, and not arguments"
	case x.asker.Lane != observe.LaneService:
		return "only calls of the service itself are learned by one"
	}
	return ""
}

// loop asks whether a time loop shall find out about a call that the panel does not let through. Where it does not, why goes
// into the refusal.
func (w *Ward) loop(x hearing, c judge.Case) (parked bool, why string) {
	if w.court.Loop == nil || x.mode != Enforce || !w.court.HasOracle() {
		return false, ""
	}
	if why = loopless(x, c); why == "" {
		parked, why = w.court.Loop(x.held, x.answer.Errno, c)
	}
	if why != "" {
		why = "; no time loop: " + why
	}
	return parked, why
}

// reach answers a call of an oracle that its workload's policy does not have.
func (w *Ward) reach(x hearing, c judge.Case) supervise.Verdict {
	why := loopless(x, c)
	if why == "" && c.Evidence.Origin.Class == judge.Unknown {
		why = "where it was made from is not known" // unknown is the stricter answer
	}
	allow := false
	if why == "" {
		allow, why = w.court.Reach(x.held, c)
	}
	x.answer.Why += "; in the oracle: " + why
	if allow {
		x.answer.Errno = 0
	} else {
		w.refusals.keep(x.key(), refusal{w.now().Add(refusalHolds), x.answer.Why, x.orders.Panel})
	}
	return w.conclude(x, allow)
}

// Refused counts a parked call as refused, when whoever has it parked has given up on it.
func (w *Ward) Refused(h supervise.Held, errno int32, c judge.Case, why string) {
	q := c.Question
	w.denied.Add(1)
	key := supervise.Key{
		Lane: q.Lane.String(), Phase: q.Phase.String(), Role: q.Role, Call: h.Call, Errno: errno, Why: q.Refusal + "; " + why,
	}
	w.Tally.Note(key, w.now(), h.TID, func() string { return commOf(h.TID) })
}

// Allows tells whether the plan has come to let a parked call through.
func (w *Ward) Allows(asker plan.Asker, h supervise.Held) bool {
	return w.orders.Load().Plan.Answer(asker, h.Call, h.Args).Action == policy.Allow
}

// LateBoot tells whether the container answers already while its boot goes on. What it asks for then it may ask for after.
func (w *Ward) LateBoot() bool { return w.boot.late() }
