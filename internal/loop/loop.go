// SPDX-License-Identifier: Apache-2.0

// Package loop decides when a workload's hardened twin, its oracle, takes production's place and when production comes back,
// and which of the calls that the twin reached are learned. It moves nothing and judges no call by its evidence; time
// arrives as a value, and what Saved gives goes on after a restart at any point.
package loop

import (
	"time"

	"github.com/whittle-sec/whittle/internal/oracle"
)

// State of a workload.
type State string

const (
	Production   State = "production"
	ToOracle     State = "to-oracle"
	InOracle     State = "oracle"
	ToProduction State = "to-production"
	// Broken: the oracle failed, and production is coming back; as ToProduction, but nothing of the visit counts.
	Broken State = "failed"
)

// Limits of what loops may cost.
type Limits struct {
	Grace         time.Duration `json:"grace"`          // without an abort, after which what the oracle reached is learned
	Quiet         time.Duration `json:"quiet"`          // without a new call, after which production comes back
	Boot          time.Duration `json:"boot"`           // that the oracle has to get ready
	Visit         time.Duration `json:"visit"`          // of one loop in all, its boot included
	PerHour       int           `json:"per_hour"`       // loops; one that learned nothing counts as two
	Share         int           `json:"share"`          // percent of an hour; time that taught nothing counts twice
	ConvergeLoops int           `json:"converge_loops"` // of the first convergence, besides, as long as each learns
	ConvergeTime  time.Duration `json:"converge_time"`
	Settle        time.Duration `json:"settle"`  // in production without a loop, after which the first convergence is over
	Backoff       time.Duration `json:"backoff"` // after which what was tried in vain is tried again; doubles
	MaxBackoff    time.Duration `json:"max_backoff"`
}

// Defaults are the limits of a workload for which nobody set others.
func Defaults() Limits {
	return Limits{
		Grace: time.Second, Quiet: 15 * time.Second, Boot: 90 * time.Second, Visit: 5 * time.Minute,
		PerHour: 6, Share: 20, ConvergeLoops: 30, ConvergeTime: 30 * time.Minute, Settle: time.Hour,
		Backoff: time.Minute, MaxBackoff: 24 * time.Hour,
	}
}

// Answer to a call that production was refused.
type Answer uint8

const (
	Deny      Answer = iota // refused, and no loop
	Join                    // a loop is under way: hold the call until it ends, then ask again
	StartLoop               // hold the call, and bring the oracle
	Learned                 // known already: the policy has it, or is about to
)

// Decision about one refused call.
type Decision struct {
	Answer Answer
	Why    string    // in plain words; of a Deny it names until when
	Until  time.Time // of a Deny that ends by itself
}

// Action is what is to be done now. Both may be.
type Action struct {
	// Commit is to be stored in the policy, and then told to Committed. Until then each Tick asks for it again, so that a
	// crash between the two loses nothing.
	Commit []Key
	Return bool // production is to come back; said again until Returned
	Why    string
}

// Verdict of a loop that ended.
type Verdict string

const (
	VerdictLearned Verdict = "learned"
	VerdictAttack  Verdict = "attack" // the oracle aborted
	VerdictQuiet   Verdict = "quiet"  // nobody made the call again
	VerdictFailed  Verdict = "failed" // the oracle did not serve
)

// Record of one loop, for people.
type Record struct {
	ID        int64          `json:"id"`       // 1, 2 … within the workload
	Workload  string         `json:"workload"` // set by who keeps it
	Cause     string         `json:"cause"`
	CauseKey  Key            `json:"cause_key"`
	Started   time.Time      `json:"started"`
	Served    time.Time      `json:"served,omitzero"` // the oracle did
	Ended     time.Time      `json:"ended,omitzero"`
	State     State          `json:"state"`
	Calls     []string       `json:"calls"`             // learned
	Dropped   []string       `json:"dropped,omitempty"` // reached just before the oracle aborted
	Verdict   Verdict        `json:"verdict,omitempty"`
	Report    *oracle.Report `json:"report,omitempty"`
	Why       string         `json:"why,omitempty"`
	Return    string         `json:"return,omitempty"` // what went wrong with bringing production back
	OracleFor time.Duration  `json:"oracle_for"`       // from the start to the end
	Lost      string         `json:"lost,omitempty"`   // what the two moves interrupted; set by who made them
}

// Status of a workload, for people.
type Status struct {
	State     State         `json:"state"`
	Converged bool          `json:"converged"`
	Loops     int           `json:"loops"`               // ever
	HourLoops int           `json:"hour_loops"`          // in the last hour
	HourTime  time.Duration `json:"hour_time"`           // in the oracle, in the last hour
	Learned   int           `json:"learned"`             // keys
	Waiting   []string      `json:"waiting"`             // reached, and within their grace
	Tried     []Tried       `json:"tried"`               // for which no loop is made for now
	NotBefore time.Time     `json:"not_before,omitzero"` // no loop before that, whatever is asked
	Why       string        `json:"why,omitempty"`       // of NotBefore
}

// Tried is a call that caused a loop in vain.
type Tried struct {
	Call  string    `json:"call"`
	Times int       `json:"times"`
	Until time.Time `json:"until"`
	Why   string    `json:"why"`
}
