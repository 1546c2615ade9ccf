// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/supervise"
	"github.com/whittle-sec/whittle/internal/workload"
)

// maxHeldLines that status shows of one container.
const maxHeldLines = 50

// tellHeld journals the refusals, and what would have been refused, that are new or have become ten times as many.
func (m *model) tellHeld(c *tracked) {
	m.countWouldDeny(c)
	for _, line := range c.held.ward.Tally.Due() {
		if line.Errno == 0 {
			continue
		}
		l := heldLine(line)
		kind := kindRefused
		if l.Shadow {
			kind = kindShadow
		}
		m.event(kind, c, heldText(c.view.Name, c.view.WorkloadName, l))
		e := &m.events[len(m.events)-1]
		e.Call = l.Call
		if data, err := json.Marshal(l); err == nil { // strings and numbers only
			e.Data = data
		}
	}
}

func heldLine(l supervise.Line) api.HeldLine {
	phase, _ := policy.ParsePhase(l.Phase) // "" of a line that stands for several is boot: it names no call either
	comm := l.Comm
	if comm == "" {
		comm = "?"
	}
	return api.HeldLine{
		ABI: l.Call.ABI.String(), Call: l.Call.String(), Lane: l.Lane, Role: workload.Printable(l.Role, 160), Phase: phase,
		Errno: l.Errno, Count: l.Count, Last: l.Last, Comm: comm, PID: l.TID, Why: l.Why, Shadow: l.Allowed,
	}
}

func heldText(container, workloadName string, l api.HeldLine) string {
	verb := "refused"
	if l.Shadow {
		verb = "would refuse"
	}
	s := fmt.Sprintf("%s: %s: %s by %s[%d] lane %s", container, verb, l.Call, l.Comm, l.PID, l.Lane)
	if l.Role != "" {
		s += ", role " + l.Role
	}
	s += fmt.Sprintf(", while in %s: %s, %s", l.Phase, l.Why, errnoName(l.Errno))
	if l.Count > 1 {
		s += fmt.Sprintf(", %d times", l.Count)
	}
	if l.Lane != "service" {
		return s // what is granted is granted to the service
	}
	return s + "; to allow it: " + fix(workloadName, l.Call, l.Phase.String())
}

// supervision as status shows it.
func (m *model) supervision(c *tracked) *api.Supervision {
	if c.held == nil {
		if !c.isSealed {
			return nil
		}
		return &api.Supervision{How: "seal", Sealed: true, Mode: api.ModeEnforce, Since: c.sealedAt, Phase: c.view.Phase, PhaseSince: c.sealedAt}
	}
	w := c.held.ward
	s := &api.Supervision{
		How: c.held.how, Since: c.held.since, Phase: w.Phase(), PhaseSince: c.held.phased,
		Listeners: c.held.supervisor.Listeners(c.held.handle),
		Attested:  c.held.attest.at, Attestation: c.held.attest.text, Deviates: c.held.attest.deviates, Sealed: c.isSealed,
		Mode: api.WorkloadMode(w.Mode().String()),
	}
	s.Calls, s.WouldDeny, s.Denied = w.Counts()
	s.Open, s.Held = openAndHeld(w.Orders(), s.Phase)
	for _, line := range w.Tally.Snapshot() {
		if line.Errno != 0 {
			s.Refusals = append(s.Refusals, heldLine(line))
		}
	}
	slices.SortFunc(s.Refusals, func(a, b api.HeldLine) int { return b.Last.Compare(a.Last) })
	s.Refusals = s.Refusals[:min(len(s.Refusals), maxHeldLines)]
	return s
}
