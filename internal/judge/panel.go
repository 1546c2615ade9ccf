// SPDX-License-Identifier: Apache-2.0

package judge

import (
	"fmt"
	"slices"

	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// Names of all judges, in the order of their votes.
var Names = []string{"origin", "risk", "phase", "equivalent", "import", "association", "fleet"}

// The indexes of Names.
const (
	byOrigin = iota
	byRisk
	byPhase
	byEquivalent
	byImport
	byAssociation
	byFleet
	judges
)

// Panel of judges for one policy. It is not changed after New, and may be used by many goroutines.
type Panel struct {
	policy policy.Policy
	tables map[syscalls.ABI]*table
	rules  Associations
	memory *memory
	absent [judges]bool
}

// New panel. rules may be nil. The policy must not be changed while the panel is in use.
func New(p policy.Policy, rules Associations) *Panel {
	panel := &Panel{policy: p, rules: rules, tables: make(map[syscalls.ABI]*table, len(p.ABIs)), memory: newMemory(p)}
	for abi, calls := range p.ABIs {
		if calls != nil {
			panel.tables[abi] = newTable(calls)
		}
	}
	return panel
}

// Only keeps the named judges. Origin's and risk's demands stay only if they are named: without risk every call needs one
// point. It panics on a name that is not in Names. For the ablation.
func (p *Panel) Only(names ...string) *Panel {
	check(names)
	q := *p
	for i, name := range Names {
		q.absent[i] = p.absent[i] || !slices.Contains(names, name)
	}
	return &q
}

// Without is the panel without the named judges; see Only.
func (p *Panel) Without(names ...string) *Panel {
	check(names)
	q := *p
	for i, name := range Names {
		q.absent[i] = p.absent[i] || slices.Contains(names, name)
	}
	return &q
}

func check(names []string) {
	for _, name := range names {
		if !slices.Contains(Names, name) {
			panic(fmt.Sprintf("judge: no judge is called %q", name))
		}
	}
}

// hearing is a case while it is heard.
type hearing struct {
	q      Question
	e      Evidence
	t      *table // of the call's ABI; nil when the policy has none
	role   roleSets
	known  bool // role is this asker's own, or that of the program it was forked from
	forked bool // the latter
	risk   risk
}

// Decide a case. The same question and evidence always get the same decision. docs/decisions/0010-the-panel.md has the rule.
func (p *Panel) Decide(q Question, e Evidence) Decision {
	switch {
	case q.Lane == observe.LaneRuntime:
		// The plan lets it do everything. What claims to be the runtime and asks is not it.
		return Decision{Why: "the runtime's own calls are not for the panel to judge"}
	case q.Withheld || p.withheld(q.Call):
		return Decision{Why: "it was taken away: only a person gives it back",
			Changed: []string{"if a person allowed it: " + p.command(q.Call)}}
	}
	if int(q.Phase) >= len(policy.Phases) {
		return Decision{Why: "the phase is not known"}
	}
	h := p.hear(q, e)
	votes := make([]Vote, 0, judges)
	for i := range judges {
		if !p.absent[i] {
			votes = append(votes, p.vote(i, h))
		}
	}
	asked := terms{level: h.risk.level, once: h.once()}
	if p.absent[byRisk] {
		asked.level = Harmless
	}
	d := decide(votes, asked)
	d.Changed = p.changed(h, d, asked)
	if (e.Socket != NoSocket || e.Target != NoTarget) && d.Verdict < Learn {
		// What is known of a socket or a target makes the call one to look at each time. Where it would be learned without
		// that, it is.
		e.Socket, e.Target = NoSocket, NoTarget
		if blind := p.Decide(q, e); blind.Verdict > d.Verdict {
			return blind
		}
	}
	return d
}

func (p *Panel) hear(q Question, e Evidence) *hearing {
	h := &hearing{q: q, e: e, t: p.tables[q.Call.ABI]}
	if h.t != nil {
		h.role, h.known, h.forked = h.t.asker(q)
	}
	h.risk = p.assess(h)
	return h
}

func (p *Panel) vote(judge int, h *hearing) (v Vote) {
	switch judge {
	case byOrigin:
		v = origin(h.e.Origin)
	case byRisk:
		v = h.risk.vote()
	case byPhase:
		v = phase(h)
	case byEquivalent:
		v = equivalent(h)
	case byImport:
		v = carrier(h.e.Import)
	case byAssociation:
		v = p.association(h)
	case byFleet:
		v = fleet(h.e.Fleet)
	}
	v.Judge = Names[judge]
	return v
}

// once is why a call that passes is not learned, or "".
func (h *hearing) once() string {
	switch {
	case h.q.Lane == observe.LaneExec:
		return "what was started from outside teaches the policy nothing"
	case h.q.Lane != observe.LaneService || !h.known:
		return "it is not known whose call it is"
	case h.forked:
		// A role with what was inferred and nothing else would be refused all that strangers may.
		return "its program did not fork while it was learned, so there is no role to learn it for"
	case h.risk.level >= Sensitive && h.e.Fleet.Replicas > 0 && h.e.Fleet.Needed <= 0:
		// An intruder is in one of them. What she has brought about there must not open the others for good.
		return "what is learned is every replica's, and no other one needed it yet"
	case h.q.Arguments || h.risk.byArgs:
		// The policy would have the call with any arguments, and the next might be of another kind.
		return "its arguments matter, and are looked at each time"
	}
	return ""
}

// withheld also says so where the asker has not been told.
func (p *Panel) withheld(call syscalls.Call) bool {
	t := p.tables[call.ABI]
	if t == nil {
		return false
	}
	_, withheld := t.calls.Withheld[call.Nr]
	return withheld
}

func (p *Panel) command(call syscalls.Call) string {
	return "whittle policy allow " + p.policy.Workload.Name() + " " + call.String()
}
