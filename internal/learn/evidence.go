// SPDX-License-Identifier: Apache-2.0

package learn

import (
	"slices"

	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

var laneNames = [...]string{
	observe.LaneService: "service",
	observe.LaneExec:    "exec",
	observe.LaneRuntime: "runtime",
}

// evidence adds what a lane showed of a call to what other lanes did.
func evidence(e policy.Evidence, t observe.Trace, cut Cut, m made) policy.Evidence {
	first := t.Epochs[m.first].Start
	if len(e.Lanes) == 0 || first < e.FirstSeen {
		e.FirstSeen = first
	}
	e.Lanes = append(e.Lanes, laneNames[m.lane]) // made is in the order of lanes
	e.Runs = 1
	if m.lane != observe.LaneRuntime {
		e.Source = "observed"
	} else if e.Source == "" {
		e.Source = "floor"
	}
	for _, seen := range m.seen {
		e.LastSeen = max(e.LastSeen, t.Epochs[seen[len(seen)-1].Epoch()].Start)
		for _, count := range seen {
			e.Count += count.Count()
		}
		if m.lane != observe.LaneService {
			continue
		}
		for phase, n := range cut.phasesOf(m.call, seen, false) {
			e.Phases[phase] += n
		}
	}
	e.Rate = max(e.Rate, rate(t, cut, m))
	return e
}

// rate is the highest of all epochs of the run phase, in calls a second, over all roles of the lane. Epochs that a mark cut
// short are taken as half a second long: a few calls in a millisecond do not make a call hot.
func rate(t observe.Trace, cut Cut, m made) (highest float64) {
	if m.lane != observe.LaneService {
		return 0
	}
	sum := map[uint32]uint64{}
	for _, seen := range m.seen {
		for _, count := range seen {
			e := count.Epoch()
			if cut.Of[e] != policy.Run {
				continue
			}
			sum[e] += count.Count()
			length := max(shortest, t.EpochEnd(int(e))-t.Epochs[e].Start)
			highest = max(highest, float64(sum[e])/length.Seconds())
		}
	}
	return highest
}

// rolesOf lists, sorted, the service lane's roles that made each call, in a birth or not.
func rolesOf(t observe.Trace) map[syscalls.Call][]string {
	roles := map[syscalls.Call][]string{}
	for _, cell := range t.Cells {
		if cell.Lane != observe.LaneService {
			continue
		}
		key := roleKey(cell.Role)
		for _, seen := range cell.Calls {
			if at, found := slices.BinarySearch(roles[seen.Call], key); !found {
				roles[seen.Call] = slices.Insert(roles[seen.Call], at, key)
			}
		}
	}
	return roles
}
