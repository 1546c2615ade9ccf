// SPDX-License-Identifier: Apache-2.0

package loop

import (
	"fmt"
	"slices"
	"time"
)

// The rate limit: an intruder decides when a call is refused, so he decides when there is a loop. Over any hour, the time away
// from production is at most Share of it, and the number of loops at most PerHour; loops that taught nothing count twice.
// A workload that has learned nothing yet needs more than that: as long as each loop teaches something, loops are taken
// from ConvergeTime and ConvergeLoops, once.

func (l Limits) orDefaults() Limits {
	d := Defaults()
	for _, f := range []struct{ value, otherwise *time.Duration }{
		{&l.Grace, &d.Grace}, {&l.Quiet, &d.Quiet}, {&l.Boot, &d.Boot}, {&l.Visit, &d.Visit}, {&l.ConvergeTime, &d.ConvergeTime},
		{&l.Settle, &d.Settle}, {&l.Backoff, &d.Backoff}, {&l.MaxBackoff, &d.MaxBackoff},
	} {
		if *f.value <= 0 {
			*f.value = *f.otherwise
		}
	}
	if l.PerHour <= 0 {
		l.PerHour = d.PerHour
	}
	if l.Share <= 0 || l.Share > 100 {
		l.Share = d.Share
	}
	if l.ConvergeLoops <= 0 {
		l.ConvergeLoops = d.ConvergeLoops
	}
	l.PerHour, l.ConvergeLoops = min(l.PerHour, 100), min(l.ConvergeLoops, 100)
	return l
}

func (l Limits) hourly() time.Duration { return time.Hour * time.Duration(l.Share) / 100 }

// least that a loop is made for: an oracle needs to boot, and then its quiet time.
func (l Limits) least() time.Duration { return min(2*l.Quiet, l.Visit, l.hourly(), l.ConvergeTime) }

// allowance is how long a loop that starts now may take, and whether that is the first convergence's; 0 and why not.
func (m *Machine) allowance(now time.Time) (time.Duration, bool, Decision) {
	if now.Before(m.s.NotBefore) {
		until := m.s.NotBefore
		return 0, false, Decision{Until: until, Why: fmt.Sprintf("%s; no loop until %s", m.s.NotBeforeWhy, clock(until))}
	}
	if len(m.s.Learned) >= maxKeys {
		return 0, false, Decision{Why: fmt.Sprintf("%d calls were learned by loops: no workload needs more", maxKeys)}
	}
	if !m.s.Converged && !m.s.LastEnd.IsZero() && now.Sub(m.s.LastEnd) >= m.limits.Settle {
		m.s.Converged = true
	}
	if m.affordable(now) {
		return min(m.limits.Visit, m.limits.hourly()-m.charged(now)), false, Decision{}
	}
	left := m.limits.ConvergeTime - m.s.ConvergeTime
	if m.converging() && left >= m.limits.least() {
		return min(m.limits.Visit, left), true, Decision{}
	}
	until := m.affordableAt(now)
	return 0, false, Decision{Until: until, Why: fmt.Sprintf(
		"%d loops with %s away from production in the last hour, what taught nothing counted twice; no loop until %s",
		m.counted(now), m.charged(now).Round(time.Second), clock(until))}
}

func (m *Machine) converging() bool {
	return !m.s.Converged && !m.s.Futile && m.s.ConvergeLoops < m.limits.ConvergeLoops && m.s.ConvergeTime < m.limits.ConvergeTime
}

func (m *Machine) affordable(now time.Time) bool {
	return m.counted(now) < m.limits.PerHour && m.limits.hourly()-m.charged(now) >= m.limits.least()
}

// affordableAt is the first second at which a loop is, if there is none before. What is charged only falls with time.
func (m *Machine) affordableAt(now time.Time) time.Time {
	early, late := now, now.Add(time.Hour+time.Second)
	for late.Sub(early) > time.Second {
		middle := early.Add(late.Sub(early) / 2)
		if m.affordable(middle) {
			late = middle
		} else {
			early = middle
		}
	}
	return late
}

// charged is the time away from production in the hour before now, with weights.
func (m *Machine) charged(now time.Time) (sum time.Duration) {
	for _, v := range m.s.Visits {
		sum += min(within(v, now), 2*time.Hour) * time.Duration(min(max(v.Weight, 0), 2))
	}
	return sum
}

// within is how much of the visit lies in the hour before now.
func within(v Visit, now time.Time) time.Duration {
	begin := now.Add(-time.Hour)
	if v.Start.After(begin) {
		begin = v.Start
	}
	return max(v.End.Sub(begin), 0)
}

// counted is the number of loops in the hour before now, with weights.
func (m *Machine) counted(now time.Time) (n int) {
	for _, v := range m.s.Visits {
		if v.End.After(now.Add(-time.Hour)) {
			n += min(max(v.Weight, 0), 2)
		}
	}
	return n
}

// charge the loop that ends now.
func (m *Machine) charge(now time.Time, verdict Verdict) {
	took, weight := max(now.Sub(m.s.Started), 0), 2
	if verdict == VerdictLearned {
		weight = 1
		if m.s.Borrowed || m.converging() && m.s.ConvergeTime+took <= m.limits.ConvergeTime {
			weight = 0
		}
	}
	// What was borrowed is spent, whatever it was spent on.
	if weight == 0 || m.s.Borrowed {
		m.s.ConvergeTime += took
		m.s.ConvergeLoops++
	}
	m.s.Futile = verdict != VerdictLearned
	m.s.Visits = append(m.s.Visits, Visit{Start: m.s.Started, End: now, Weight: weight})
	m.prune(now)
}

// prune what is more than an hour ago.
func (m *Machine) prune(now time.Time) {
	m.s.Visits = slices.DeleteFunc(m.s.Visits, func(v Visit) bool { return !v.End.After(now.Add(-time.Hour)) })
	if n := len(m.s.Visits) - maxVisits; n > 0 {
		m.s.Visits = m.s.Visits[n:]
	}
}

// Status tells people where the workload stands.
func (m *Machine) Status(now time.Time) Status {
	st := Status{
		State: m.s.State, Converged: m.s.Converged, Loops: int(m.s.Loops), Learned: len(m.s.Learned), Waiting: []string{},
		Tried: []Tried{},
	}
	for _, v := range m.s.Visits {
		if d := within(v, now); d > 0 {
			st.HourLoops++
			st.HourTime += d
		}
	}
	for _, c := range m.s.Candidates {
		st.Waiting = append(st.Waiting, c.Key.String())
	}
	for _, a := range m.s.Attempts {
		if now.Before(a.Until) {
			st.Tried = append(st.Tried, Tried{Call: a.Key.String(), Times: a.Times, Until: a.Until, Why: a.Why})
		}
	}
	if now.Before(m.s.NotBefore) {
		st.NotBefore, st.Why = m.s.NotBefore, m.s.NotBeforeWhy
		return st
	}
	if m.s.State == Production && !m.affordable(now) && !(m.converging() && m.limits.ConvergeTime-m.s.ConvergeTime >= m.limits.least()) {
		st.NotBefore, st.Why = m.affordableAt(now), "the limit of loops in an hour"
	}
	return st
}
