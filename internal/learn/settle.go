// SPDX-License-Identifier: Apache-2.0

package learn

import (
	"fmt"
	"strings"

	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/internal/policy"
)

// A reason is one line without a semicolon: policies join and sort reasons by it.

// settle is the stop rule: the run phase of the service lane decides, since that is what an attacker of a serving container
// meets. Other phases end by themselves.
func settle(t observe.Trace, r Result, cfg Config) policy.Settled {
	if !r.Cut.has(policy.Run) {
		return settleJob(t, r, cfg)
	}
	e := estimate(r.Estimates, policy.Run)
	s := settled(e)
	wanting := missingEvidence(e, cfg)
	if !r.Cut.Confirmed {
		wanting = append(wanting, "readiness is not confirmed yet")
	}
	wanting = append(wanting, unbalanced(t.Account)...)
	if len(wanting) > 0 {
		s.Reason = "waiting: " + strings.Join(wanting, ", ")
		return s
	}
	s.Settled = true
	s.Reason = fmt.Sprintf("settled: after %d bursts and %d epochs of running, at most %s of the next bursts and %s of the next epochs are expected to hold an unseen call, and the account balances",
		e.Bursts.Units, e.Epochs.Units, percent(e.Bursts.PUnseen()), percent(e.Epochs.PUnseen()))
	return s
}

// settleJob settles what never ran: a batch job that has ended, by its bursts alone, since the length of a job is not a
// number of tries.
func settleJob(t observe.Trace, r Result, cfg Config) policy.Settled {
	e := estimate(r.Estimates, policy.Boot)
	s := settled(e)
	if !t.Ended {
		s.Reason = "waiting: " + r.Cut.Reason
		return s
	}
	wanting := unbalanced(t.Account)
	if e.Bursts.Units < cfg.MinBursts || e.Bursts.PUnseen() > cfg.EpsilonBurst {
		wanting = append(wanting, fmt.Sprintf("a run of a job with %s says little about the next: run it again", bursts(e.Bursts.Units)))
	}
	if len(wanting) > 0 {
		s.Reason = "waiting: " + strings.Join(wanting, ", ")
		return s
	}
	s.Settled = true
	s.Reason = fmt.Sprintf("settled: the job has ended, after %d bursts at most %s of the next are expected to hold an unseen call, and the account balances",
		e.Bursts.Units, percent(e.Bursts.PUnseen()))
	return s
}

func settled(e Estimate) policy.Settled {
	return policy.Settled{
		PUnseen:      e.Bursts.PUnseen(),
		Bursts:       e.Bursts.Units,
		PUnseenEpoch: e.Epochs.PUnseen(),
		Epochs:       e.Epochs.Units,
		Missing:      e.Bursts.Missing(),
	}
}

func missingEvidence(e Estimate, cfg Config) (wanting []string) {
	if e.Bursts.Units < cfg.MinBursts {
		wanting = append(wanting, fmt.Sprintf("%d of at least %d bursts", e.Bursts.Units, cfg.MinBursts))
	}
	if p := e.Bursts.PUnseen(); p > cfg.EpsilonBurst {
		wanting = append(wanting, fmt.Sprintf("up to %s of the next bursts may hold an unseen call, at most %s are wanted",
			percent(p), percent(cfg.EpsilonBurst)))
	}
	if e.Epochs.Units < uint64(cfg.MinEpochs) {
		wanting = append(wanting, fmt.Sprintf("%d of at least %d epochs of running", e.Epochs.Units, cfg.MinEpochs))
	}
	if p := e.Epochs.PUnseen(); p > cfg.EpsilonEpoch {
		wanting = append(wanting, fmt.Sprintf("up to %s of the next epochs may hold an unseen call, at most %s are wanted",
			percent(p), percent(cfg.EpsilonEpoch)))
	}
	return wanting
}

// unbalanced is what of the account stands against settling. What no further observation can mend, io_uring and numbers
// that do not exist, makes the policy partial but does not keep it open for ever.
func unbalanced(a observe.Account) []string {
	a.IOUring, a.UnknownNumbers = false, 0
	return a.Problems()
}

// estimate of the service lane in a phase; zero when it made no call in it.
func estimate(all []Estimate, phase policy.Phase) Estimate {
	for _, e := range all {
		if e.Phase == phase && e.Lane == observe.LaneService {
			return e
		}
	}
	return Estimate{Phase: phase, Lane: observe.LaneService}
}

func bursts(n uint64) string {
	if n == 1 {
		return "1 burst"
	}
	return fmt.Sprintf("%d bursts", n)
}

// percent with two digits that count; %g alone would write 100 as 1e+02.
func percent(p float64) string {
	if p >= 0.1 {
		return fmt.Sprintf("%.0f %%", 100*p)
	}
	return fmt.Sprintf("%.2g %%", 100*p)
}
