// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"strings"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// surveyed takes in what the scholar saw, and journals what changed.
func (m *model) surveyed(seen map[key]glance) {
	m.surveying = false
	for k, g := range seen {
		c := m.containers[k]
		if c == nil || c.gone || c.id != g.id {
			continue // it ended meanwhile
		}
		if g.err != nil {
			c.view.Note = g.err.Error()
			continue
		}
		m.learned(c, g)
	}
}

func (m *model) learned(c *tracked, g glance) {
	before, after := c.view, observedView(c.view, g.lesson)
	if c.held != nil {
		after.Phase = before.Phase // the kernel's marks say, which held calls are answered by
	}
	calls := serviceCalls(g.lesson.Policy)
	for _, n := range changes(before, after, newCalls(c.calls, calls)) {
		m.event(n.kind, c, n.text)
	}
	m.tellDoubts(c, g.doubts)
	c.view, c.calls = after, calls
	if g.orders != nil && c.held != nil {
		c.held.ward.SetOrders(g.orders)
	}
	if after.Mode == api.Settled && g.stopKnown {
		c.view.Mode, c.view.Note = api.Known, "settled, and its stop was seen before: no longer observed"
		id := c.id
		delete(m.observed, id)
		c.id = 0
		m.queue = append(m.queue, releaseJob{subject{key: c.key, id: id, workload: c.view.Workload}, c.reg, c})
	}
}

// observedView is the container as status shows it, after a lesson.
func observedView(v api.Container, l Lesson) api.Container {
	v.Phase, v.Settled, v.Partial = l.Phase, l.Policy.Settled, l.Policy.Partial
	v.BootEnd, v.SpeakerBootEnd = l.BootEnd, l.Speaker
	v.Distinct, v.ByPhase = 0, map[string]int{}
	for _, set := range serviceCalls(l.Policy) {
		v.Distinct += set.Len()
	}
	for _, calls := range l.Policy.ABIs {
		for phase, set := range calls.Phases {
			v.ByPhase[phase.String()] += set.Len()
		}
	}
	v.Mode, v.Note = api.Learning, l.Policy.Settled.Reason
	if l.Policy.Settled.Settled {
		v.Mode, v.Note = api.Settled, "settled; still watching so that its stop is learned"
	}
	return v
}

// serviceCalls of all phases.
func serviceCalls(p policy.Policy) map[syscalls.ABI]syscalls.Set {
	all := map[syscalls.ABI]syscalls.Set{}
	for abi, calls := range p.ABIs {
		for _, set := range calls.Phases {
			all[abi] = all[abi].Union(set)
		}
	}
	return all
}

func newCalls(before, after map[syscalls.ABI]syscalls.Set) (names []string) {
	for _, abi := range syscalls.ABIs {
		names = append(names, after[abi].Minus(before[abi]).Names(abi)...)
	}
	return names
}

// notice of a change, for the journal.
type notice struct{ kind, text string }

// changes that a person would want to know.
func changes(before, after api.Container, added []string) (out []notice) {
	if before.Distinct > 0 && before.Phase != after.Phase {
		out = append(out, notice{kindPhase, fmt.Sprintf("%s: %s -> %s, %d calls so far",
			after.Name, before.Phase, after.Phase, after.Distinct)})
	}
	if before.Mode == api.Settled && len(added) > 0 {
		out = append(out, notice{kindNew, fmt.Sprintf("%s: new after it had settled: %s", after.Name, strings.Join(added, ", "))})
	}
	if before.Mode != api.Settled && after.Mode == api.Settled {
		out = append(out, notice{kindSettled, fmt.Sprintf(
			"%s has settled: %d calls; the next burst has an unseen call with p <= %.2g, after %d bursts",
			after.Name, after.Distinct, after.Settled.PUnseen, after.Settled.Bursts)})
	}
	return out
}
