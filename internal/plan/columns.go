// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"maps"
	"slices"

	"github.com/whittle-sec/whittle/internal/cve"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// Column is one phase beside the others.
type Column struct {
	Phase policy.Phase
	// Learned is what was seen of the service in the phase, Calls what it can make under supervision: what is answered
	// with yes to some role that is not being born, and what the kernel lets through in any phase.
	Learned map[syscalls.ABI]syscalls.Set
	Calls   map[syscalls.ABI]syscalls.Set
	// Removes are in Calls of the column before and not in these. Nil for the first.
	Removes     map[syscalls.ABI]syscalls.Set
	Inferred    string // how the phase came by its calls, if it was never learned
	Neutralised int    // CVEs that cannot be reached with Calls
}

// Columns are the policy's phases, in order. A workload that was never seen running, a job, has no others than boot.
func (p *Plan) Columns() []Column {
	if len(p.tables) == 0 {
		return nil
	}
	phases := policy.Phases[:]
	if !p.learned(policy.Run) {
		phases = slices.DeleteFunc(slices.Clone(phases), func(phase policy.Phase) bool {
			return phase != policy.Boot && !p.learned(phase)
		})
	}
	var columns []Column
	for _, phase := range phases {
		c := p.column(phase)
		if len(columns) > 0 {
			before := columns[len(columns)-1].Calls
			c.Removes = make(map[syscalls.ABI]syscalls.Set)
			for abi, calls := range c.Calls {
				c.Removes[abi] = before[abi].Minus(calls)
			}
		}
		columns = append(columns, c)
	}
	return columns
}

func (p *Plan) learned(phase policy.Phase) bool {
	for _, t := range p.tables {
		if !t.calls.Phases[phase].Empty() {
			return true
		}
	}
	return false
}

func (p *Plan) column(phase policy.Phase) Column {
	c := Column{Phase: phase, Learned: make(map[syscalls.ABI]syscalls.Set), Calls: make(map[syscalls.ABI]syscalls.Set)}
	switch {
	case phase == policy.Reload && !p.reloaded:
		c.Inferred = "no reload was learned: what booting and running need"
	case phase == policy.Stop && !p.stopped:
		c.Inferred = "no stop was learned: what running needs, and what is harmless"
	}
	for abi, t := range p.tables {
		c.Learned[abi] = t.calls.Phases[phase]
		c.Calls[abi] = p.reachable(t, phase)
	}
	abis := slices.Sorted(maps.Keys(c.Calls))
	neutralised, _ := cve.Neutralised(abis, func(call syscalls.Call, arg string) bool {
		return c.Calls[call.ABI].Has(call.Nr) && cve.Passes(p.tables[call.ABI].calls.Args[call.Nr], call, arg)
	})
	c.Neutralised = len(neutralised)
	return c
}

// reachable is what the service can make in a phase, outside births.
func (p *Plan) reachable(t *table, phase policy.Phase) syscalls.Set {
	s := t.class.own
	if len(t.roles) == 0 {
		s = s.Union(t.whole.serving[phase])
	}
	for _, r := range t.roles {
		s = s.Union(r.serving[phase])
	}
	s = s.Union(t.whole.serving[phase].Minus(t.byRole))
	if phase == policy.Stop && !p.stopped {
		s = s.Union(t.class.harmless)
	}
	for nr, e := range t.entries {
		nr := uint32(nr)
		_, withheld := t.calls.Withheld[nr]
		_, quarantined := t.calls.Quarantined[nr]
		switch {
		case e.Place == Open, e.Bulk && phase == policy.Boot:
			s.Add(nr)
		case withheld, quarantined, e.Place == Shut:
			s.Remove(nr)
		}
	}
	return s
}
