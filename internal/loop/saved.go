// SPDX-License-Identifier: Apache-2.0

package loop

import (
	"slices"
	"time"
)

// What is kept. Everything else is bounded by these: an intruder decides what is asked for.
const (
	maxKeys   = 4096 // learned
	maxTried  = 1024
	maxCauses = 256 // of one loop
	maxVisits = 512
)

// Saved is everything that a Machine goes on from, as JSON.
type Saved struct {
	State State     `json:"state"`
	Now   time.Time `json:"now,omitzero"` // of the last input: a clock that was set back is noticed by it

	Learned    []Key       `json:"learned,omitempty"`
	Candidates []Candidate `json:"candidates,omitempty"`
	Attempts   []Attempt   `json:"attempts,omitempty"`

	// Of the loop under way.
	Started  time.Time     `json:"started,omitzero"`
	LastNew  time.Time     `json:"last_new,omitzero"`
	Allowed  time.Duration `json:"allowed,omitempty"`
	Borrowed bool          `json:"borrowed,omitempty"` // from what the first convergence may take
	Causes   []Key         `json:"causes,omitempty"`
	RetryAt  time.Time     `json:"retry_at,omitzero"` // production did not come back
	Retries  int           `json:"retries,omitempty"`

	// What loops have cost.
	Loops         int64         `json:"loops,omitempty"` // ever
	Visits        []Visit       `json:"visits,omitempty"`
	Converged     bool          `json:"converged,omitempty"`
	ConvergeTime  time.Duration `json:"converge_time,omitempty"`
	ConvergeLoops int           `json:"converge_loops,omitempty"`
	Futile        bool          `json:"futile,omitempty"` // the last loop taught nothing that can be relied on
	LastEnd       time.Time     `json:"last_end,omitzero"`
	Failures      int           `json:"failures,omitempty"` // of the oracle, one after the other
	NotBefore     time.Time     `json:"not_before,omitzero"`
	NotBeforeWhy  string        `json:"not_before_why,omitempty"`

	Record *Record `json:"record,omitempty"` // of the loop under way, or of the last
}

// Candidate is a call that the oracle reached.
type Candidate struct {
	Key   Key       `json:"key"`
	Since time.Time `json:"since"`
	TID   int       `json:"tid,omitempty"`
	Due   bool      `json:"due,omitempty"` // to be committed: its grace is over
}

// Attempt is a call that caused a loop in vain.
type Attempt struct {
	Key   Key       `json:"key"`
	Times int       `json:"times"`
	Until time.Time `json:"until"`
	Why   string    `json:"why"`
}

// Visit of the oracle, as it is charged.
type Visit struct {
	Start  time.Time `json:"start"`
	End    time.Time `json:"end"`
	Weight int       `json:"weight"` // 0: the first convergence; 1: it taught something; 2: it did not
}

// sound is what can be gone on from. A state that is not known may have left an oracle in production's place.
func (s Saved) sound() Saved {
	switch s.State {
	case "":
		s.State = Production
	case Production, ToOracle, InOracle, ToProduction, Broken:
	default:
		s.State = ToProduction
	}
	s.Learned, s.Candidates = cut(s.Learned, maxKeys), cut(s.Candidates, maxKeys)
	s.Attempts, s.Causes, s.Visits = cut(s.Attempts, maxTried), cut(s.Causes, maxCauses), cut(s.Visits, maxVisits)
	record := Record{ID: s.Loops, State: s.State, Started: s.Started}
	if s.Record != nil {
		record = *s.Record
		record.Calls, record.Dropped = slices.Clone(record.Calls), slices.Clone(record.Dropped)
	}
	if s.Record != nil || s.State != Production || len(s.Candidates) > 0 {
		s.Record = &record
	}
	for _, n := range []*int{&s.Retries, &s.ConvergeLoops, &s.Failures} {
		*n = min(max(*n, 0), 1<<20)
	}
	s.Loops = max(s.Loops, 0)
	s.ConvergeTime, s.Allowed = max(s.ConvergeTime, 0), max(s.Allowed, 0)
	return s
}

// cut also copies: a Saved that was given away does not change.
func cut[T any](list []T, limit int) []T { return slices.Clone(list[:min(len(list), limit)]) }

// shift moves every moment that something is measured from, after the clock was set back.
func (s *Saved) shift(by time.Duration) {
	moments := []*time.Time{&s.Started, &s.LastNew, &s.RetryAt, &s.LastEnd, &s.NotBefore}
	for i := range s.Candidates {
		moments = append(moments, &s.Candidates[i].Since)
	}
	for i := range s.Attempts {
		moments = append(moments, &s.Attempts[i].Until)
	}
	for i := range s.Visits {
		moments = append(moments, &s.Visits[i].Start, &s.Visits[i].End)
	}
	for _, at := range moments {
		if !at.IsZero() {
			*at = at.Add(by)
		}
	}
}
