// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/filter"
	"github.com/whittle-sec/whittle/internal/hint"
	"github.com/whittle-sec/whittle/internal/kernel"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// sealedPhases are what a container that has booted goes through.
var sealedPhases = policy.Selection{Phases: []policy.Phase{policy.Run, policy.Reload, policy.Stop}}

// Seal stacks a plain filter on a container: what no phase after boot needs is refused from now on, and nobody can take
// that back.
func (a *Agent) Seal(ctx context.Context, _ api.Peer, r api.SealRequest) (out api.AttachResult, err error) {
	if a.Supervising == nil {
		return out, fmt.Errorf("%w: this agent injects no filters", api.ErrInvalid)
	}
	s, err := a.siteOf(ctx, r.Container, 0)
	if err != nil {
		return out, err
	}
	p := s.orders.Policy
	if s.view.Phase == policy.Boot {
		return out, hint.Add(fmt.Errorf("%w: %s is still booting: it would lose what it needs for that", api.ErrInvalid, s.view.Name),
			"seal it when whittle status shows it in run")
	}
	rules, err := filter.FromPolicy(p, sealedPhases)
	if err != nil {
		return out, err
	}
	if s.request.Program, err = filter.Compile(rules); err != nil {
		return out, err
	}
	out = api.AttachResult{Container: s.view.Name, Workload: s.view.WorkloadName, DryRun: r.DryRun}
	for abi, t := range rules.Tables {
		for nr := range syscalls.Known(abi).All() {
			if t.Actions[nr] == filter.Allow {
				out.Open++
			} else {
				out.Refused++
			}
		}
	}
	if !p.Complete {
		out.Warnings = append(out.Warnings, "its policy is "+wholeness(p))
	}
	if !stopLearned(p) {
		out.Warnings = append(out.Warnings, "no stop of it was ever seen: what it needs for that is refused, too")
	}
	s.request.Skip = true
	if r.DryRun {
		return a.survey(s, rules, out)
	}
	return a.attach(ctx, s, out, "seal")
}

func stopLearned(p policy.Policy) bool {
	for _, calls := range p.ABIs {
		if !calls.Phases[policy.Stop].Empty() {
			return true
		}
	}
	return false
}

// sealed container: from now on the kernel refuses without asking, and what it refuses is looked for.
func (m *model) sealed(c *tracked, s site, seq int64) error {
	c.isSealed, c.sealedAt = true, m.agent.Now()
	pid, started := c.view.PID, startOf(c.view.PID)
	m.record(func(ctx context.Context, st Store) error { return st.ConfirmSupervision(ctx, seq, pid, started) })
	m.event(kindSeal, c, fmt.Sprintf("%s is sealed: what its policy %d does not have for run, reload and stop is refused for good",
		c.view.Name, s.orders.Revision))
	if c.id == 0 {
		if err := m.follow(c); err != nil {
			return err
		}
	}
	allowed := kernel.Allowed{Calls: map[syscalls.ABI]syscalls.Set{}, Checked: map[syscalls.Call][]kernel.Check{}}
	for abi, calls := range s.orders.Policy.ABIs {
		allowed.Calls[abi] = policy.AllowedSet(s.orders.Policy, sealedPhases, abi)
		for nr, rules := range calls.Args {
			set := allowed.Calls[abi]
			set.Remove(nr)
			allowed.Calls[abi] = set
			for _, r := range rules {
				call := syscalls.Call{ABI: abi, Nr: nr}
				allowed.Checked[call] = append(allowed.Checked[call], kernel.Check(r))
			}
		}
	}
	c.view.Mode = api.Enforced
	// Before the settling: what is refused between the two would be told by nobody.
	m.queue = append(m.queue, watchJob{c.id, c.key, allowed})
	if c.learns {
		m.settle(c)
	}
	return nil
}

// watchJob reports what the filters of a followed container refuse.
type watchJob struct {
	id      kernel.ID
	key     key
	allowed kernel.Allowed
}

func (j watchJob) do(_ context.Context, s *scholar) func(*model) {
	err := s.agent.Observer.AlsoWatch(j.id, j.allowed)
	return func(m *model) {
		if c := m.containers[j.key]; c != nil && err != nil {
			m.event(kindProblem, c, fmt.Sprintf("what is refused to %s cannot be seen: %v", c.view.Name, err))
		}
	}
}

// settle a container that is learned from: what it taught goes into the book, and only who is who stays known.
func (m *model) settle(c *tracked) {
	c.learns = false
	m.queue = append(m.queue, settleJob{c.subject(), c.reg, c})
}

type settleJob struct {
	subject
	reg api.Registration
	who *tracked
}

func (j settleJob) do(ctx context.Context, s *scholar) func(*model) {
	trace, err := s.agent.Observer.Settle(j.id)
	if err != nil {
		return func(m *model) { m.event(kindProblem, j.who, fmt.Sprintf("settle %s: %v", j.who.view.Name, err)) }
	}
	lesson := j.guard(s.agent.Learn(j.workload, trace))
	fresh := s.fold(ctx, j.subject, lesson)
	s.floor(ctx, j.reg, trace)
	return func(m *model) {
		m.tellDoubts(j.who, fresh)
		m.event(kindRelease, j.who, j.who.view.Name+" is no longer observed: no task of the host pays for its calls; what it asks for beyond its filter is held")
	}
}
