// SPDX-License-Identifier: Apache-2.0

package learn

import (
	"time"

	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/internal/policy"
)

// reloads marks the epochs from each reload signal until nothing new was called for a quiet time, which belongs to the
// reload too. New is what the service lane did not call while it was running, nor since the signal: a feature that the
// new configuration turned on for good is new once.
func reloads(t observe.Trace, s *series, cut *Cut, cfg Config) {
	if _, any := t.Mark(observe.CauseReload); !any {
		return
	}
	made := s.byEpoch()
	running := make([]bool, len(s.made)) // was called in the run phase
	since := make([]int, len(s.made))    // the last reload in which it was called
	reload, quiet := 0, time.Duration(0)
	reloading := false
	for e := cut.BootEnd; e < len(t.Epochs) && cut.Of[e] != policy.Stop; e++ {
		if t.Epochs[e].Cause == observe.CauseReload {
			reloading, quiet = true, 0
			reload++
		}
		novel := false
		for _, call := range made[e] {
			if !reloading {
				running[call] = true
				continue
			}
			novel = novel || !running[call] && since[call] != reload
			since[call] = reload
		}
		if !reloading {
			continue
		}
		cut.set(e, policy.Reload)
		if quiet += t.EpochEnd(e) - t.Epochs[e].Start; novel {
			quiet = 0
		}
		reloading = quiet < cfg.Quiet
	}
}

// byEpoch lists, for each epoch, the service lane's calls by their index in made.
func (s *series) byEpoch() [][]int32 {
	made := make([][]int32, len(s.fresh))
	for i, m := range s.made {
		if m.lane != observe.LaneService {
			continue
		}
		for _, seen := range m.seen {
			for _, e := range seen {
				made[e.Epoch()] = append(made[e.Epoch()], int32(i))
			}
		}
	}
	return made
}
