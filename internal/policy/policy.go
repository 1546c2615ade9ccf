// SPDX-License-Identifier: Apache-2.0

// Package policy is what a workload may call: per ABI and phase, with the evidence for each entry. It does not learn
// (package learn proposes policies) and does not compile filters (package filter does).
package policy

import (
	"fmt"
	"time"

	"github.com/whittle-sec/whittle/internal/syscalls"
	"github.com/whittle-sec/whittle/internal/workload"
)

// FormatVersion of the JSON form, described in docs/formats.md.
const FormatVersion = 1

// Phase of a container's life.
type Phase uint8

const (
	Boot Phase = iota
	Run
	Reload
	Stop
)

// Phases in the order of a container's life.
var Phases = [...]Phase{Boot, Run, Reload, Stop}

var phaseNames = [...]string{Boot: "boot", Run: "run", Reload: "reload", Stop: "stop"}

func (p Phase) String() string {
	if int(p) < len(phaseNames) {
		return phaseNames[p]
	}
	return fmt.Sprintf("phase%d", uint8(p))
}

// ParsePhase is the inverse of String.
func ParsePhase(s string) (Phase, error) {
	for i, name := range phaseNames {
		if name == s {
			return Phase(i), nil
		}
	}
	return 0, fmt.Errorf("unknown phase %q", s)
}

func (p Phase) MarshalText() ([]byte, error) {
	if int(p) >= len(phaseNames) {
		return nil, fmt.Errorf("marshal invalid phase %d", uint8(p))
	}
	return []byte(phaseNames[p]), nil
}

func (p *Phase) UnmarshalText(text []byte) (err error) {
	*p, err = ParsePhase(string(text))
	return err
}

// Policy of one workload. A Policy is a value: functions that change it return a new one.
type Policy struct {
	Workload workload.Workload
	// Complete is true when the account of every run balances. Partial says, in plain words, why it does not.
	Complete bool
	Partial  []string
	Account  Account
	ABIs     map[syscalls.ABI]*Calls
	Settled  Settled
}

// Calls of one ABI.
type Calls struct {
	Phases map[Phase]syscalls.Set // of the service lane
	Floor  syscalls.Set           // of the runtime lane: what runc or crun needs after it loaded the filter
	Exec   syscalls.Set           // of the exec lane
	Roles  map[string]RoleCalls   // service lane by role; the key is "PATH:GENERATION", for instance "/usr/sbin/nginx:1"
	// Evidence for each number in any of the sets above.
	Evidence map[uint32]Evidence
	// Denied calls: another filter answered them with this errno while they were learned. They are not allowed.
	Denied map[uint32]DeniedCall
	// Withheld calls, and who withheld each and why. They are in no set but Floor, whatever is learned: a person said so.
	Withheld map[uint32]string
	// Quarantined calls, and why: they were seen while learning, and are not trusted (Quarantine). A normal policy has
	// them in no set but Floor; where another set has one, that set is right.
	Quarantined map[uint32]string
	// Args constrains a call to the values that were observed. A call without an entry is not constrained.
	Args map[uint32][]ArgRule
}

// RoleCalls are the calls of one role, with those of its births apart.
type RoleCalls struct {
	Phases map[Phase]syscalls.Set // outside births
	Birth  syscalls.Set           // before a task's first wait
}

// Evidence is why a call is in the policy.
type Evidence struct {
	Source string `json:"source"` // "observed", "inferred", "granted", "floor", "kernel", "quarantined"
	// Count is about how often it was seen (see observe.Seen), over all runs.
	Count uint64 `json:"count,omitempty"`
	// FirstSeen and LastSeen are since the start of the container that saw it first and last.
	FirstSeen time.Duration `json:"first_seen,omitempty"`
	LastSeen  time.Duration `json:"last_seen,omitempty"`
	Phases    PhaseCounts   `json:"phases,omitzero"`  // service lane
	Lanes     []string      `json:"lanes,omitempty"`  // "service", "exec", "runtime"
	Roles     []string      `json:"roles,omitempty"`  // which roles made it
	Rate      float64       `json:"rate,omitempty"`   // calls a second while running, its highest epoch
	Runs      int           `json:"runs,omitempty"`   // in how many containers it was seen
	Reason    string        `json:"reason,omitempty"` // for inferred and granted: rule, or who and why
}

// DeniedCall is a call that another filter refused while the workload was learned.
type DeniedCall struct {
	Errno int32  `json:"errno"`
	Count uint64 `json:"count"`
}

// ArgRule allows a call when argument Index, masked with Mask, equals Value. Rules with different Index must all have a
// match (AND over indexes, OR over values of one index).
type ArgRule struct {
	Index uint8  `json:"index"`
	Mask  uint64 `json:"mask"` // all ones for equality
	Value uint64 `json:"value"`
}

// Account sums what the observations behind a policy may have missed.
type Account struct {
	Runs           int               `json:"runs"`      // containers that were observed
	LateRuns       int               `json:"late_runs"` // of them not observed from their first call to their last
	Losses         map[string]uint64 `json:"losses,omitempty"`
	UnknownNumbers uint64            `json:"unknown_numbers,omitempty"`
	Recorded       uint64            `json:"recorded"`
	Drained        uint64            `json:"drained"`
	IOUring        bool              `json:"io_uring,omitempty"`
	Gaps           []string          `json:"gaps,omitempty"`
}

// Settled is how the stop rule stands.
type Settled struct {
	Settled bool    `json:"settled"`
	PUnseen float64 `json:"p_unseen"` // upper estimate of the chance that the next burst has an unseen call
	Bursts  uint64  `json:"bursts"`
	// PUnseenEpoch is the same for the next epoch, about a second long: a load of equal requests makes bursts that say
	// nothing about the next operation.
	PUnseenEpoch float64 `json:"p_unseen_epoch"`
	Epochs       uint64  `json:"epochs"`
	Missing      float64 `json:"missing"`          // Chao2 estimate of how many calls were never seen
	Reason       string  `json:"reason,omitempty"` // what is still wanting, or why it settled
}
