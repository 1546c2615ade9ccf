// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/store"
	"github.com/whittle-sec/whittle/internal/supervise"
	"github.com/whittle-sec/whittle/internal/ward"
)

// bootTime is after which a container whose start nobody saw is taken to have booted: until then it keeps its boot-only
// calls.
const bootTime = 30 * time.Second

// watchOver the supervised containers: once a survey.
func (m *model) watchOver() {
	if m.agent.Supervising == nil {
		return
	}
	m.renewDue()
	m.promote()
	m.giveBack()
	m.forgetUnborn()
	for _, c := range m.containers {
		if c.held == nil || c.gone {
			continue
		}
		m.endBoot(c)
		m.tellHot(c)
		if phase := c.held.ward.Phase(); phase != c.view.Phase {
			m.event(kindPhase, c, fmt.Sprintf("%s: %s -> %s: %s", c.view.Name, c.view.Phase, phase, phaseText(c, phase)))
			c.view.Phase, c.held.phased = phase, m.agent.Now()
			m.warm(c)
		}
		// Nothing more is learned from a container that is enforced: what it may do, it has done before.
		if c.learns && c.held.ward.Mode() == ward.Enforce && c.view.Phase != policy.Boot {
			m.settle(c)
		}
		if c.held.ward.Mode() == ward.Enforce && c.view.Phase == policy.Run {
			m.narrow(c)
		}
		if h := c.held; m.agent.Now().Sub(h.attest.at) > attestEvery && m.agent.Now().Sub(h.since) > settleIn && !c.attesting {
			c.attesting = true
			m.agent.start(func() {
				m.agent.attest(context.Background(), c)
				_ = m.agent.ask(context.Background(), func(*model) error { c.attesting = false; return nil })
			})
		}
	}
}

// quiet is how long no container has started when the memory that starts took is given back: a node that boots starts
// hundreds at once, and keeps them for months.
const quiet = 10 * time.Second

func (m *model) giveBack() {
	if m.lastStart.IsZero() || m.agent.Now().Sub(m.lastStart) < quiet {
		return
	}
	m.lastStart = time.Time{}
	m.agent.start(debug.FreeOSMemory) // it takes milliseconds: not the owner's
}

// unborn is how old the record of a container gets that was prepared and never came: its engine failed to create it.
const unborn = 10 * time.Minute

// forgetUnborn puts down the records of containers that never came.
func (m *model) forgetUnborn() {
	if m.agent.Now().Sub(m.lastUnborn) < unborn {
		return
	}
	m.lastUnborn = m.agent.Now()
	before := m.lastUnborn.Add(-unborn)
	m.record(func(ctx context.Context, s Store) error {
		all, err := s.Supervised(ctx)
		for _, r := range all {
			if r.State == store.Intended && r.PID == 0 && r.Updated.Before(before) {
				err = errors.Join(err, s.AbandonSupervision(ctx, r.Seq))
			}
		}
		return err
	})
}

// endBoot of a container whose boot ends without a connection accepted: by what was learned of it now, or by its age where
// nothing is learned.
func (m *model) endBoot(c *tracked) {
	stage, ok := m.agent.Observer.Stage(c.id)
	if !ok || stage != observe.StageBoot {
		return
	}
	if !hasRun(c.held.ward.Orders().Policy) {
		return // a job: it does its work and ends, and was never seen to do anything after its boot
	}
	learned := c.learns && c.view.BootEnd > 0
	old := !c.learns && processAge(c.view.PID) > bootTime
	if !learned && !old {
		return
	}
	if err := m.agent.Observer.SetStage(c.id, observe.StageRun); err != nil {
		m.event(kindProblem, c, fmt.Sprintf("%s keeps its boot-only calls: %v", c.view.Name, err))
	}
}

func hasRun(p policy.Policy) bool {
	for _, calls := range p.ABIs {
		if !calls.Phases[policy.Run].Empty() {
			return true
		}
	}
	return false
}

// phaseText says what a phase takes away or gives.
func phaseText(c *tracked, phase policy.Phase) string {
	o := c.held.ward.Orders()
	gone := 0
	for _, column := range o.Plan.Columns() {
		if phase != policy.Run || column.Phase != policy.Run {
			continue
		}
		for _, calls := range column.Removes {
			gone += calls.Len()
		}
	}
	open, held := openAndHeld(o, phase)
	text := fmt.Sprintf("%d calls open, %d held and allowed", open, held)
	if gone > 0 {
		text += fmt.Sprintf("; %d were for booting only and are refused now", gone)
	}
	if c.held.ward.Mode() != ward.Enforce {
		text += " (" + c.held.ward.Mode().String() + ")"
	}
	return text
}

// processAge of a process; 0 when it is gone.
func processAge(pid int) time.Duration {
	t, err := supervise.Lookup(pid)
	if err != nil {
		return 0
	}
	return t.Age
}
