// SPDX-License-Identifier: Apache-2.0

package learn

import (
	"time"

	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// Estimate of what a phase of a lane has not shown yet. It is made twice, because a benchmark makes a hundred thousand
// equal bursts a second: they say much about the next burst and nothing about the next operation.
type Estimate struct {
	Phase  policy.Phase
	Lane   observe.Lane
	Calls  int
	Bursts Sample // a unit is a burst
	Epochs Sample // a unit is an epoch with a call in it, a second long at first and longer with the container's age
}

// Sample has the statistics of incidence data: of T units each holds a set of calls.
type Sample struct {
	Units uint64 // T
	// Once and Twice are Q1 and Q2, the numbers of calls that were found in exactly one and exactly two units.
	Once, Twice int
	// Alone is the number of units that hold a call found in no other.
	Alone uint64
	// Incidences is U, the sum over calls of the units that hold them.
	Incidences uint64
}

// PUnseen is an upper estimate of the chance that the next unit holds an unseen call.
//
// Good ("The population frequencies of species and the estimation of population parameters", Biometrika 40, 1953) estimates
// the chance of something new from what was seen once: if the order of the units does not matter, each was as likely to be
// the last, and Alone of the T would have come as a surprise then, which gives Alone/T. Calls of one operation come
// together; counting units, not calls, counts that surprise once (Q1/T, the expected number of unseen calls, is never
// less). With no surprise the estimate would be zero, so one is added in the manner of Laplace's rule of succession:
//
//	(Alone + 1) / (T + 1)
func (s Sample) PUnseen() float64 {
	return min(1, (float64(s.Alone)+1)/(float64(s.Units)+1))
}

// Missing is the Chao2 estimate, a lower bound, of how many calls were never seen (Chao, "Estimating the population size for
// capture-recapture data with unequal catchability", Biometrics 43, 1987):
//
//	(T-1)/T Q1^2 / (2 Q2), and (T-1)/T Q1 (Q1-1) / 2 where Q2 = 0
func (s Sample) Missing() float64 {
	if s.Units == 0 || s.Once == 0 {
		return 0
	}
	t, q1, q2 := float64(s.Units), float64(s.Once), float64(s.Twice)
	if s.Twice == 0 {
		return (t - 1) / t * q1 * (q1 - 1) / 2
	}
	return (t - 1) / t * q1 * q1 / (2 * q2)
}

// Coverage is the part of all incidences that belongs to calls that were seen (Chao and Jost, "Coverage-based rarefaction and
// extrapolation", Ecology 93, 2012, in the form for incidence data of Chao et al., Ecological Monographs 84, 2014):
//
//	1 - Q1/U (T-1) Q1 / ((T-1) Q1 + 2 Q2), and with (Q1-1) and 2 for Q1 and 2 Q2 in the fraction where Q2 = 0
func (s Sample) Coverage() float64 {
	if s.Incidences == 0 {
		return 0
	}
	t, q1, rest := float64(s.Units), float64(s.Once), 2*float64(s.Twice)
	x := q1
	if s.Twice == 0 {
		x, rest = q1-1, 2
	}
	if x <= 0 {
		return 1
	}
	return 1 - q1/float64(s.Incidences)*(t-1)*x/((t-1)*x+rest)
}

// add one call found in n units.
func (s *Sample) add(n uint64) {
	switch n {
	case 0:
		return
	case 1:
		s.Once++
	case 2:
		s.Twice++
	}
	s.Incidences += n
}

// group is a phase and a lane.
type group struct {
	phase policy.Phase
	lane  observe.Lane
}

const lanes = int(observe.LaneRuntime) + 1

func (g group) index() int { return int(g.phase)*lanes + int(g.lane) }

const groups = len(policy.Phases) * lanes

func estimates(t observe.Trace, s *series, cut Cut) []Estimate {
	var all [groups]Estimate
	sampleEpochs(t, s, cut, &all)
	sampleBursts(t, cut, &all)
	var found []Estimate
	for _, phase := range policy.Phases {
		for lane := observe.LaneService; lane <= observe.LaneRuntime; lane++ {
			if e := all[group{phase, lane}.index()]; e.Calls > 0 {
				e.Phase, e.Lane = phase, lane
				found = append(found, e)
			}
		}
	}
	return found
}

// shortest is how long a unit of time is at least. Marks cut epochs short, and a storm of them must not pass for time.
const shortest = 500 * time.Millisecond

// units numbers the units of time that the epochs belong to.
func units(t observe.Trace, cut Cut) (of []int, n int) {
	of = make([]int, len(t.Epochs))
	var began time.Duration
	for e, epoch := range t.Epochs {
		if e == 0 || cut.Of[e] != cut.Of[e-1] || epoch.Start-began >= shortest {
			n++
			began = epoch.Start
		}
		of[e] = n - 1
	}
	return of, n
}

func sampleEpochs(t observe.Trace, s *series, cut Cut, all *[groups]Estimate) {
	of, n := units(t, cut)
	phase := make([]policy.Phase, n)
	for e, unit := range of {
		phase[unit] = cut.Of[e]
	}
	active := make([][lanes]bool, n)
	alone := make([][lanes]bool, n)
	stamp := make([]int, n) // 1 + the last call that was counted in the unit
	for i, m := range s.made {
		var found [len(policy.Phases)]uint64
		var last [len(policy.Phases)]int
		for _, seen := range m.seen {
			for _, e := range seen {
				unit := of[e.Epoch()]
				if stamp[unit] == i+1 {
					continue
				}
				stamp[unit] = i + 1
				active[unit][m.lane] = true
				found[phase[unit]]++
				last[phase[unit]] = unit
			}
		}
		for p, n := range found {
			if n == 0 {
				continue
			}
			e := &all[group{policy.Phase(p), m.lane}.index()]
			e.Calls++
			e.Epochs.add(n)
			if n == 1 {
				alone[last[p]][m.lane] = true
			}
		}
	}
	for unit := range n {
		for lane := range lanes {
			e := &all[group{phase[unit], observe.Lane(lane)}.index()]
			if active[unit][lane] {
				e.Epochs.Units++
			}
			if alone[unit][lane] {
				e.Epochs.Alone++
			}
		}
	}
}

func sampleBursts(t observe.Trace, cut Cut, all *[groups]Estimate) {
	type key struct {
		group int
		call  syscalls.Call
	}
	found := map[key]uint64{}
	counts := make([][len(policy.Phases)]uint64, len(t.Bursts))
	for i, burst := range t.Bursts {
		for _, e := range burst.Epochs {
			counts[i][cut.Of[e.Epoch()]] += e.Count()
		}
		for p, n := range counts[i] {
			if n == 0 {
				continue
			}
			g := group{policy.Phase(p), t.Cells[burst.Cell].Lane}.index()
			all[g].Bursts.Units += n
			for _, nr := range burst.Calls {
				found[key{g, syscalls.Call{ABI: burst.ABI, Nr: nr}}] += n
			}
		}
	}
	for k, n := range found {
		all[k.group].Bursts.add(n)
	}
	for i, burst := range t.Bursts {
		for p, n := range counts[i] {
			if n != 1 {
				continue // a burst that was made twice holds nothing that was found once
			}
			g := group{policy.Phase(p), t.Cells[burst.Cell].Lane}.index()
			for _, nr := range burst.Calls {
				if found[key{g, syscalls.Call{ABI: burst.ABI, Nr: nr}}] == 1 {
					all[g].Bursts.Alone++
					break
				}
			}
		}
	}
}
