// SPDX-License-Identifier: Apache-2.0

// Package learn turns what was observed of a container into phases, a stop rule and a proposed policy. It observes
// nothing, knows no other container's observations and enforces nothing.
package learn

import (
	"fmt"
	"time"

	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// Config of the learner. Use Default; the numbers are there to be explained and tested, not to be tuned by users.
type Config struct {
	// Confirm is how long after a mark of readiness nothing may contradict it.
	Confirm time.Duration
	// Settling is how long after readiness new calls are put down to the first requests rather than to booting.
	Settling time.Duration
	// Horizon is how much time after a change-point the change-point is judged by, where nothing was accepted. A
	// fixed horizon keeps the cut where it is when the container goes on running.
	Horizon time.Duration
	// Restart is how long after readiness a program that is started and listens is taken for the real server, the
	// first having been an entrypoint's temporary one.
	Restart time.Duration
	// Quiet is how long nothing new may be called for a reload to be over.
	Quiet time.Duration
	// Flat is how long nothing new may be called for SPEAKER's rule to find its fixpoint.
	Flat time.Duration

	// The stop rule settles when the next burst has an unseen call with a chance of at most EpsilonBurst, the next
	// epoch of at most EpsilonEpoch, after at least MinBursts and MinEpochs.
	EpsilonBurst, EpsilonEpoch float64
	MinBursts                  uint64
	MinEpochs                  int
}

// Default configuration. A service under steady load whose calls all recur settles after 30 s of running; one operation
// that was seen only once, in the first second for instance, asks for 49 s, two for 74 s.
func Default() Config {
	return Config{
		Confirm:      3 * time.Second,
		Settling:     2 * time.Second,
		Horizon:      5 * time.Second,
		Restart:      60 * time.Second,
		Quiet:        5 * time.Second,
		Flat:         10 * time.Second,
		EpsilonBurst: 0.005,
		EpsilonEpoch: 0.04,
		MinBursts:    200,
		MinEpochs:    30,
	}
}

// Sets are the calls of the service lane by ABI and phase.
type Sets map[syscalls.ABI]map[policy.Phase]syscalls.Set

// Result of an analysis of everything that was observed so far.
type Result struct {
	Phase policy.Phase // now, or when the container ended
	// Distinct calls of the service lane, and how many of them belong to each ABI.
	Distinct int
	ByABI    map[syscalls.ABI]int
	Sets     Sets
	Cut      Cut
	// Speaker is where SPEAKER's rule would have cut, and what its running set would be, to compare with.
	Speaker     Cut
	SpeakerSets Sets
	// Estimates of the stop rule for each phase and lane that was seen.
	Estimates []Estimate
	Settled   policy.Settled
	// Notes say in plain words what is no fault of the observation but should be known.
	Notes []string
}

// Analyse a trace. It takes time and memory in proportion to the trace's size.
func Analyse(t observe.Trace, cfg Config) Result {
	if err := t.Validate(); err != nil {
		// Only a damaged file comes here. An empty result allows nothing and is not settled.
		return Result{Settled: policy.Settled{PUnseen: 1, PUnseenEpoch: 1, Reason: fmt.Sprintf("waiting: the trace is damaged: %v", err)}}
	}
	s := newSeries(t)
	r := Result{
		Cut:     phases(t, s, cfg),
		Speaker: speakerCut(t, s, cfg),
		ByABI:   map[syscalls.ABI]int{},
	}
	r.Phase = r.Cut.Now()
	for call := range s.calls(observe.LaneService) {
		r.Distinct++
		r.ByABI[call.ABI]++
	}
	r.Sets = sets(t, r.Cut)
	r.SpeakerSets = sets(t, r.Speaker)
	r.Estimates = estimates(t, s, r.Cut)
	r.Settled = settle(t, r, cfg)
	r.Notes = notes(t, r)
	return r
}

// sets are unions over all cells, so that no call is lost because a late thread made it first. If calls were lost, no
// phase is narrower than all that was seen: the lost ones may have been made in any of them.
func sets(t observe.Trace, cut Cut) Sets {
	sets := Sets{}
	for _, cell := range t.Cells {
		if cell.Lane != observe.LaneService {
			continue
		}
		for _, seen := range cell.Calls {
			byPhase := sets[seen.Call.ABI]
			if byPhase == nil {
				byPhase = map[policy.Phase]syscalls.Set{}
				sets[seen.Call.ABI] = byPhase
			}
			for phase := range cut.phasesOf(seen.Call, seen.Epochs, t.Account.LostCalls()) {
				set := byPhase[phase]
				set.Add(seen.Call.Nr)
				byPhase[phase] = set
			}
		}
	}
	return sets
}

func notes(t observe.Trace, r Result) (notes []string) {
	if r.Cut.has(policy.Run) && !r.Cut.has(policy.Stop) { // a job ends by itself
		notes = append(notes, "stop phase not seen")
	}
	if t.Account.LostCalls() && r.Cut.phases() > 1 {
		notes = append(notes, "calls were lost, so every phase allows what any phase was seen to call")
	}
	return notes
}
