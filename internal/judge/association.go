// SPDX-License-Identifier: Apache-2.0

package judge

import (
	"fmt"
	"strings"

	"github.com/whittle-sec/whittle/internal/syscalls"
)

// What makes a rule strong or weak. The lower bound counts, not the confidence, so that a rule seen three times is not
// certain. A strong rule holds in more than one other workload: one may be this one's twin. A weak rule must at least
// tell those who do the same from those who do not (lift).
const (
	strongLower = 0.75
	weakLower   = 0.25
	weakLift    = 1.5
	sources     = 2
)

// association asks what other services do that do what this role does.
func (p *Panel) association(h *hearing) Vote {
	switch {
	case p.rules == nil:
		return Vote{Why: "there are no rules to go by"}
	case h.q.Arguments:
		return Vote{Why: "rules say nothing about arguments"}
	case h.t == nil || !h.known:
		return Vote{Why: "what the asker does is not known"}
	}
	if h.placed() {
		return Vote{Why: "the policy knows when and by whom the call is made, and what others do does not change that"}
	}
	did := h.role.does(h.q.Phase)
	found := p.memory.best(p.rules, h.q.Call, did)
	points := found.points
	// What a role did in all its life says less about now. Of a call that it made then it says nothing new: its boot goes
	// with its boot. A grave call needs a reason that holds now.
	if points == 0 && !h.role.all.Has(h.q.Call.Nr) && h.risk.level < Grave {
		if whole := p.memory.best(p.rules, h.q.Call, h.role.all); whole.points > 0 {
			found, points = whole, weakRule
		}
	}
	if !found.ok {
		return Vote{Why: "no rule leads from what the role does to this call"}
	}
	v := Vote{Why: found.words, Rule: found.rule}
	if points == 0 {
		v.Why = "only a rule that says too little: " + v.Why
		return v
	}
	v.Stance, v.Points = For, points
	return v
}

func strength(r Rule) int {
	switch {
	case !(r.Lower >= weakLower): // not a number is no evidence
		return 0
	case r.Lower >= strongLower && len(r.Sources) >= sources:
		return strongRule
	case r.Lower >= strongLower || r.Lift >= weakLift:
		return weakRule
	}
	return 0
}

// placed reports whether the policy has the operation for others than this role, or for another phase if it is grave or lets
// others in. Rules
// know neither: who accepts connections has listened, some time, some process of it.
func (h *hearing) placed() bool {
	same := syscalls.Equivalents(h.q.Call)
	if h.risk.level < Sensitive || h.t.service.Intersect(same).Empty() {
		return false
	}
	return h.risk.level >= Grave || opensDoor(h.q.Call) || h.role.all.Intersect(same).Empty()
}

// found is the answer of Associations, and what it is worth. The rule is shared by all who get it.
type found struct {
	ok     bool
	rule   *Rule
	points int
	words  string
}

// did is what a rule was looked up by.
type did struct {
	call syscalls.Call
	set  syscalls.Set
}

// String is the rule with its numbers, for instance "who does sendmsg and wait4 also does kill: 92 % of them, at least
// 85 % (lift 3.1, 120 transactions, in httpd and haproxy)".
func (r Rule) String() string {
	return fmt.Sprintf("who does %s also does %s: %.0f %% of them, at least %.0f %% (lift %.1f, support %.3g %% of %d transactions%s)",
		and(r.If), r.Then, 100*r.Confidence, 100*r.Lower, r.Lift, 100*r.Support, r.Of, inSources(r.Sources))
}

func inSources(s []string) string {
	if len(s) == 0 {
		return ""
	}
	return ", in " + and(s)
}

func and(words []string) string {
	switch n := len(words); n {
	case 0:
		return "anything"
	case 1:
		return words[0]
	default:
		return strings.Join(words[:n-1], ", ") + " and " + words[n-1]
	}
}
