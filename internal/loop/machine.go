// SPDX-License-Identifier: Apache-2.0

package loop

import (
	"fmt"
	"slices"
	"time"

	"github.com/whittle-sec/whittle/internal/oracle"
	"github.com/whittle-sec/whittle/internal/workload"
)

// Machine of one workload. It is not safe for concurrent use. After each input that changed something, Saved is to be
// stored before anything is done about it.
type Machine struct {
	limits  Limits
	s       Saved
	resumed bool // nothing was asked since New
}

// New goes on from what was saved; the zero Saved is a workload in production that never had a loop. Limits that are zero
// are the defaults. After a restart with an oracle under way, whoever knows what became of it says so (Aborted, Failed)
// before the first Tick.
func New(limits Limits, saved Saved) *Machine {
	return &Machine{limits: limits.orDefaults(), s: saved.sound(), resumed: true}
}

// begin of each input: now never goes backwards.
func (m *Machine) begin(now time.Time) time.Time {
	if back := m.s.Now.Sub(now); back > 0 && !m.s.Now.IsZero() {
		if back <= time.Second {
			now = m.s.Now // inputs of two goroutines
		} else {
			m.s.shift(-back)
		}
	}
	m.s.Now = now
	if m.resumed {
		// Nobody saw whether the oracle aborted meanwhile: what was within its grace begins it anew.
		for i := range m.s.Candidates {
			m.s.Candidates[i].Since = now
		}
		m.resumed = false
	}
	m.prune(now)
	return now
}

// Refused is told of each call that production was refused and that no other judge vouches for.
func (m *Machine) Refused(now time.Time, k Key, why string) Decision {
	now = m.begin(now)
	if !k.valid() {
		return Decision{Why: "a call that is not known, or a program with too long a name"}
	}
	if slices.Contains(m.s.Learned, k) {
		return Decision{Answer: Learned, Why: "the oracle reached it before"}
	}
	switch m.s.State {
	case Production:
		if i := m.candidate(k); i >= 0 { // of the last loop, about to be committed
			return Decision{Answer: Learned, Why: "the oracle reached it"}
		}
		return m.start(now, k, why)
	case ToOracle, InOracle:
		return m.join(now, k)
	}
	return Decision{Why: "production is just coming back from its oracle; the next time it may cause a loop"}
}

func (m *Machine) join(now time.Time, k Key) Decision {
	joined := Decision{Answer: Join, Why: fmt.Sprintf("loop %d is under way", m.s.Loops)}
	if m.candidate(k) >= 0 || slices.Contains(m.s.Causes, k) {
		return joined
	}
	if d, denied := m.triedBefore(now, k); denied {
		return d
	}
	if len(m.s.Causes) >= maxCauses {
		return Decision{Why: fmt.Sprintf("%d different calls wait for the loop that is under way", maxCauses)}
	}
	m.s.Causes = append(m.s.Causes, k)
	m.s.LastNew = now // it gets its quiet time too
	return joined
}

// triedBefore says that no loop is made for the key for now.
func (m *Machine) triedBefore(now time.Time, k Key) (Decision, bool) {
	for _, a := range m.s.Attempts {
		if a.Key == k && now.Before(a.Until) {
			return Decision{Until: a.Until, Why: fmt.Sprintf("%s; no loop for this call until %s", a.Why, clock(a.Until))}, true
		}
	}
	return Decision{}, false
}

// start a loop, when the limits allow one.
func (m *Machine) start(now time.Time, k Key, why string) Decision {
	if d, denied := m.triedBefore(now, k); denied {
		return d
	}
	allowed, borrowed, d := m.allowance(now)
	if allowed <= 0 {
		return d
	}
	m.s.Loops++
	m.s.State, m.s.Started, m.s.LastNew, m.s.Allowed, m.s.Borrowed = ToOracle, now, now, allowed, borrowed
	m.s.Causes, m.s.Retries, m.s.RetryAt = []Key{k}, 0, time.Time{}
	m.s.Record = &Record{
		ID: m.s.Loops, Cause: k.String(), CauseKey: k, Started: now, State: ToOracle, Calls: []string{}, Why: printable(why),
	}
	return Decision{Answer: StartLoop, Why: fmt.Sprintf("loop %d, of at most %s", m.s.Loops, allowed.Round(time.Second))}
}

// Serving: the oracle took production's place.
func (m *Machine) Serving(now time.Time) {
	now = m.begin(now)
	if m.s.State != ToOracle {
		return
	}
	m.s.State, m.s.LastNew = InOracle, now
	m.s.Record.State, m.s.Record.Served = InOracle, now
}

// Reached is told of each call that the oracle makes outside the policy and that is its service's own. It reports whether the
// key is new: once the oracle aborted or failed, none is. A key is learned when its grace has passed, or the oracle has
// ended, without an abort.
func (m *Machine) Reached(now time.Time, k Key, tid int) (isNew bool) {
	now = m.begin(now)
	if m.s.State == Production || m.spoiled() || !k.valid() || slices.Contains(m.s.Learned, k) {
		return false
	}
	if i := m.candidate(k); i >= 0 {
		m.s.Candidates[i].TID = tid
		return false
	}
	if len(m.s.Learned)+len(m.s.Candidates) >= maxKeys {
		return false
	}
	m.s.Candidates = append(m.s.Candidates, Candidate{Key: k, Since: now, TID: tid})
	m.s.LastNew = now
	return true
}

// spoiled: nothing that the oracle does any more counts.
func (m *Machine) spoiled() bool {
	return m.s.State == Broken || m.s.Record.Verdict == VerdictAttack
}

func (m *Machine) candidate(k Key) int {
	return slices.IndexFunc(m.s.Candidates, func(c Candidate) bool { return c.Key == k })
}

// Committed: the policy has them. What no Tick asked to commit is not taken.
func (m *Machine) Committed(now time.Time, keys []Key) {
	m.begin(now)
	for _, k := range keys {
		i := m.candidate(k)
		if i < 0 || !m.s.Candidates[i].Due {
			continue
		}
		m.s.Candidates = slices.Delete(m.s.Candidates, i, i+1)
		m.s.Learned = append(m.s.Learned, k)
		m.s.Attempts = slices.DeleteFunc(m.s.Attempts, func(a Attempt) bool { return a.Key == k })
		m.s.Record.Calls = append(m.s.Record.Calls, k.String())
	}
}

// Aborted: the oracle's hardening ended a process of it. Production is to come back (Tick says so). It is to be told
// before Returned, also when the report is found after the container has ended.
func (m *Machine) Aborted(now time.Time, r oracle.Report) {
	now = m.begin(now)
	if m.s.State == Production {
		return
	}
	m.drop(now)
	record := m.s.Record
	if record.Report == nil {
		record.Report = &r
	}
	record.Verdict, record.Why = VerdictAttack, printable("the oracle aborted: "+r.Summary)
	if m.s.State != Broken {
		m.s.State = ToProduction
	}
	record.State = m.s.State
}

// drop what was reached so shortly before that it may be the intruder's.
func (m *Machine) drop(now time.Time) {
	m.ripen(now)
	m.s.Candidates = slices.DeleteFunc(m.s.Candidates, func(c Candidate) bool {
		if !c.Due {
			m.s.Record.Dropped = append(m.s.Record.Dropped, c.Key.String())
		}
		return !c.Due
	})
}

// ripen marks the candidates whose grace is over.
func (m *Machine) ripen(now time.Time) {
	for i, c := range m.s.Candidates {
		if now.Sub(c.Since) >= m.limits.Grace {
			m.s.Candidates[i].Due = true
		}
	}
}

// Failed: the oracle did not get ready or ended without a report; or, while production was coming back, production did not
// get ready, which is tried again.
func (m *Machine) Failed(now time.Time, why string) {
	now = m.begin(now)
	switch m.s.State {
	case ToOracle, InOracle:
		m.broken(now, why)
	case ToProduction, Broken:
		m.s.Retries = min(m.s.Retries+1, 1<<20)
		m.s.RetryAt = now.Add(doubled(5*time.Second, m.s.Retries, 5*time.Minute))
		m.s.Record.Return = printable(fmt.Sprintf("production did not come back (%d times), at last: %s", m.s.Retries, why))
	}
}

func (m *Machine) broken(now time.Time, why string) {
	m.drop(now)
	m.s.State = Broken
	m.s.Record.State, m.s.Record.Verdict, m.s.Record.Why = Broken, VerdictFailed, printable(why)
}

// Void: the oracle is none, as an image that was not hardened. Nothing that it reached is learned, whether or not its grace is over,
// but for what the policy has already.
func (m *Machine) Void(now time.Time, why string) {
	m.begin(now)
	record := m.s.Record
	if record == nil {
		return
	}
	for _, c := range m.s.Candidates {
		record.Dropped = append(record.Dropped, c.Key.String())
	}
	m.s.Candidates = nil
	if record.Verdict == VerdictAttack {
		return
	}
	if m.s.State == ToOracle || m.s.State == InOracle {
		m.s.State = Broken
	}
	record.State, record.Verdict, record.Why = m.s.State, VerdictFailed, printable(why)
}

// Tick is called about each second, and after each input.
func (m *Machine) Tick(now time.Time) (a Action) {
	now = m.begin(now)
	m.ripen(now)
	for _, c := range m.s.Candidates {
		if c.Due {
			a.Commit = append(a.Commit, c.Key)
		}
	}
	took := now.Sub(m.s.Started)
	switch quiet := now.Sub(m.s.LastNew); {
	case m.s.State == ToOracle && took >= min(m.limits.Boot, m.s.Allowed):
		m.broken(now, fmt.Sprintf("the oracle was not ready after %s", took.Round(time.Second)))
	case m.s.State == InOracle && quiet >= m.limits.Quiet:
		m.leave(fmt.Sprintf("nothing new for %s", m.limits.Quiet))
	case m.s.State == InOracle && took >= m.s.Allowed:
		m.leave(fmt.Sprintf("the loop had its %s", m.s.Allowed.Round(time.Second)))
	}
	if m.s.State == ToProduction || m.s.State == Broken {
		a.Return, a.Why = !now.Before(m.s.RetryAt), m.s.Record.Why
	}
	return a
}

func (m *Machine) leave(why string) {
	m.s.State, m.s.Record.State, m.s.Record.Why = ToProduction, ToProduction, why
}

// Returned: production serves, and the oracle has ended. Calls that waited for the loop are to be asked about again.
func (m *Machine) Returned(now time.Time) {
	now = m.begin(now)
	if m.s.State == Production {
		return
	}
	if m.s.State == ToOracle {
		m.broken(now, "production came back before the oracle served")
	}
	// The oracle ended without an abort: nothing can follow any more.
	for i := range m.s.Candidates {
		m.s.Candidates[i].Due = true
	}
	record := m.s.Record
	if record.Verdict == "" {
		record.Verdict = VerdictQuiet
		if len(record.Calls)+len(m.s.Candidates) > 0 {
			record.Verdict = VerdictLearned
		}
	}
	m.settle(now, record)
	m.charge(now, record.Verdict)
	m.s.State, m.s.LastEnd, m.s.Causes = Production, now, nil
	m.s.RetryAt, m.s.Retries = time.Time{}, 0
	record.State, record.Ended, record.OracleFor = Production, now, max(now.Sub(m.s.Started), 0)
}

// settle what a loop leaves for the next: for which calls there is none for a while, and whether there is any.
func (m *Machine) settle(now time.Time, record *Record) {
	if record.Verdict == VerdictFailed {
		m.s.Failures = min(m.s.Failures+1, 1<<20)
		m.s.NotBefore = now.Add(doubled(m.limits.Backoff, m.s.Failures, m.limits.MaxBackoff))
		m.s.NotBeforeWhy = printable("the oracle failed: " + record.Why)
		return
	}
	m.s.Failures, m.s.NotBefore, m.s.NotBeforeWhy = 0, time.Time{}, ""
	why := fmt.Sprintf("the oracle served %s and nobody made the call again", max(now.Sub(m.s.Started), 0).Round(time.Second))
	if record.Verdict == VerdictAttack {
		why = record.Why
	}
	for _, k := range m.s.Causes {
		if !slices.Contains(m.s.Learned, k) && m.candidate(k) < 0 {
			m.attempted(now, k, why)
		}
	}
}

func (m *Machine) attempted(now time.Time, k Key, why string) {
	i := slices.IndexFunc(m.s.Attempts, func(a Attempt) bool { return a.Key == k })
	if i < 0 && len(m.s.Attempts) >= maxTried {
		// Of whom a loop may be made again soonest is forgotten.
		i = 0
		for j, a := range m.s.Attempts {
			if a.Until.Before(m.s.Attempts[i].Until) {
				i = j
			}
		}
		m.s.Attempts[i] = Attempt{Key: k}
	}
	if i < 0 {
		m.s.Attempts = append(m.s.Attempts, Attempt{Key: k})
		i = len(m.s.Attempts) - 1
	}
	a := &m.s.Attempts[i]
	a.Times = min(max(a.Times, 0)+1, 1<<20)
	a.Until, a.Why = now.Add(doubled(m.limits.Backoff, a.Times, m.limits.MaxBackoff)), printable(why)
}

// Forget what a person took out of the policy.
func (m *Machine) Forget(now time.Time, keys []Key) {
	m.begin(now)
	for _, k := range keys {
		m.s.Learned = slices.DeleteFunc(m.s.Learned, func(l Key) bool { return l == k })
		m.s.Attempts = slices.DeleteFunc(m.s.Attempts, func(a Attempt) bool { return a.Key == k })
	}
}

// Reset is for another oracle: what failed before is tried again, and convergence begins anew. What loops cost in the last
// hour still counts.
func (m *Machine) Reset(now time.Time) {
	m.begin(now)
	m.s.Attempts, m.s.Failures, m.s.NotBefore, m.s.NotBeforeWhy = nil, 0, time.Time{}, ""
	m.s.Converged, m.s.ConvergeTime, m.s.ConvergeLoops, m.s.Futile, m.s.LastEnd = false, 0, 0, false, time.Time{}
}

// Saved is a copy.
func (m *Machine) Saved() Saved { return m.s.sound() }

func (m *Machine) State() State { return m.s.State }

// Record of the loop under way, or of the last; not ok when there never was one.
func (m *Machine) Record() (r Record, ok bool) {
	if m.s.Record == nil {
		return Record{}, false
	}
	return *m.s.sound().Record, true
}

func printable(s string) string { return workload.Printable(s, 240) }

// clock is when, as people read it.
func clock(at time.Time) string { return at.UTC().Format("2006-01-02 15:04:05 UTC") }

// doubled is first for the first time, and twice as long for each time more, up to limit.
func doubled(first time.Duration, times int, limit time.Duration) time.Duration {
	for ; times > 1 && first < limit; times-- {
		first *= 2
	}
	return min(first, limit)
}
