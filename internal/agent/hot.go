// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"time"

	"github.com/whittle-sec/whittle/internal/plan"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// rateEvery is over how long the rate of held calls is measured.
const rateEvery = 10 * time.Second

// rates of the calls that are held and allowed in one container.
type rates struct {
	at    time.Time
	count map[syscalls.Call]uint64
	told  map[syscalls.Call]bool
}

// tellHot reports calls that have become so frequent that asking about each costs more than the plan's budget. The filter of
// this container stays as it is; the rate goes into the policy, and the next start's plan has the call open if it may be.
func (m *model) tellHot(c *tracked) {
	r, now := &c.held.rates, m.agent.Now()
	if now.Sub(r.at) < rateEvery || c.oracleOf != nil {
		return
	}
	count := map[syscalls.Call]uint64{}
	for _, line := range c.held.ward.Tally.Snapshot() {
		if line.Errno == 0 {
			count[line.Call] += line.Count
		}
	}
	o := plan.Default()
	for call, n := range count {
		rate := float64(n-min(n, r.count[call])) / now.Sub(r.at).Seconds()
		cost := rate * o.HeldCost.Seconds()
		if r.at.IsZero() || cost <= o.Budget || r.told[call] {
			continue
		}
		if r.told == nil {
			r.told = map[syscalls.Call]bool{}
		}
		r.told[call] = true
		m.event(kindHot, c, fmt.Sprintf("%s: %s is held %.0f times a second, which costs %.1f %% of a core; from its next start on it is open, "+
			"if that gives nothing away: whittle policy show %s --plan", c.view.Name, call, rate, 100*cost, c.view.WorkloadName))
		m.wantRenewal(c, fmt.Sprintf("%s has become too frequent to be asked about", call))
		m.queue = append(m.queue, rateJob{c.view.WorkloadID, call, rate})
	}
	r.at, r.count = now, count
}

// rateJob writes how often a call is made into the policy, from which the next plan is made.
type rateJob struct {
	id   string
	call syscalls.Call
	rate float64
}

func (j rateJob) do(ctx context.Context, s *scholar) func(*model) {
	b := s.book(ctx, j.id)
	calls := b.base.ABIs[j.call.ABI]
	if !b.loaded || calls == nil {
		return nil
	}
	e, ok := calls.Evidence[j.call.Nr]
	if !ok || e.Rate >= j.rate {
		return nil
	}
	e.Rate = j.rate
	calls.Evidence[j.call.Nr] = e
	b.dirty = true
	s.saveBook(ctx, j.id, b, fmt.Sprintf("%s is made %.0f times a second", j.call, j.rate))
	return nil
}
