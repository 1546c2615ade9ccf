// SPDX-License-Identifier: Apache-2.0

// Package plan splits a policy into what the kernel lets through, what is held and asked about each time, and what is
// refused without asking; and it answers the held calls by lane, phase, role, birth and arguments. It reads no listener
// and journals nothing (package supervise does the one, the agent the other).
package plan

import (
	"time"

	"github.com/whittle-sec/whittle/internal/filter"
	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// Place is who decides about a call.
type Place uint8

const (
	Held Place = iota // the supervisor is asked each time
	Open              // the kernel lets it through
	Shut              // the kernel refuses without asking
)

// Entry is one call of the plan.
type Entry struct {
	Call  syscalls.Call
	Place Place
	Bulk  bool    // made too often by a boot to be held: open until the boot ends, held after
	Why   string  // in plain words
	Rate  float64 // calls a second in its busiest epoch while running
	Cost  float64 // share of one core that holding it would cost at that rate
}

// Options of a plan. Use Default.
type Options struct {
	HeldCost   time.Duration                 // what one held call costs
	Budget     float64                       // of a core, for each call
	BootCalls  uint64                        // a boot-only call made more often than this in one boot is Bulk
	Floor      map[syscalls.ABI]syscalls.Set // what the runtime needs after it loaded the filter
	AlwaysOpen []string                      // never held, whatever the policy says
}

// Default options.
func Default() Options {
	return Options{HeldCost: 10 * time.Microsecond, Budget: 0.005, BootCalls: 2000, AlwaysOpen: []string{"write"}}
}

// Plan of one policy. It is not changed after Make, and may be used by many goroutines.
type Plan struct{}

// Make the plan of a policy.
func Make(p policy.Policy, o Options) *Plan { return &Plan{} }

// Entries are all named calls of the policy's ABIs, by ABI and name.
func (p *Plan) Entries() []Entry { return nil }

// Booting is the filter while the container boots: Bulk calls are Open.
func (p *Plan) Booting() *filter.Rules { return &filter.Rules{Foreign: filter.Errno(uint16(policy.ENOSYS))} }

// Running is the filter from the end of the boot on; the same as Booting when nothing is Bulk.
func (p *Plan) Running() *filter.Rules { return p.Booting() }

// HasBulk reports whether Booting and Running differ.
func (p *Plan) HasBulk() bool { return false }

// Asker is whose call is held. Role is "PATH:GENERATION" as in policy.Calls.Roles, "" when it is not known.
type Asker struct {
	Lane  observe.Lane
	Phase policy.Phase
	Role  string
	Birth bool
}

// Answer to a held call. The zero Answer refuses.
type Answer struct {
	Action policy.Action
	Errno  int32
	Novel  bool // in no phase and lane of the policy
	Why    string
}

// Answer a held call.
func (p *Plan) Answer(a Asker, call syscalls.Call, args [6]uint64) Answer {
	return Answer{Errno: policy.EPERM}
}

// Column is one phase beside the others.
type Column struct {
	Phase       policy.Phase
	Calls       map[syscalls.ABI]syscalls.Set
	Removes     map[syscalls.ABI]syscalls.Set // in the column before and not in this one
	Neutralised int                           // CVEs
}

// Columns are the policy's phases that were learned, in order.
func (p *Plan) Columns() []Column { return nil }
