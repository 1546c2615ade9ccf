// SPDX-License-Identifier: Apache-2.0

// Package plan splits a policy into what the kernel lets through, what is held and asked about each time, and what is
// refused without asking; and it answers the held calls by lane, phase, role, birth and arguments. It reads no listener
// and journals nothing (package supervise does the one, the agent the other).
//
// A call earns its place among those the kernel lets through by being hot or harmless. What is rare and risky is held, and
// so is what only booting needs: a call that the kernel lets through cannot be taken away when the phase ends.
// docs/decisions/0006-open-or-held.md has the rule and its reasons.
package plan

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

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

var placeNames = [...]string{Held: "held", Open: "open", Shut: "shut"}

func (p Place) String() string {
	if int(p) < len(placeNames) {
		return placeNames[p]
	}
	return fmt.Sprintf("place%d", uint8(p))
}

// MarshalText is String.
func (p Place) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

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
	HeldCost   time.Duration                 // what one held call costs: 5 µs at best, 30–100 where another CPU is woken
	CallCost   time.Duration                 // what a call and the work around it cost on average, to weigh shares by
	Budget     float64                       // of a core, for each call
	BootCalls  uint64                        // a call that is made more often than this in one boot is Bulk, if it would be held
	Floor      map[syscalls.ABI]syscalls.Set // what the runtime needs after it loaded the filter, besides the policy's own floor
	AlwaysOpen []string                      // open if in the policy or the floor and shut if not: never held
}

// Default options.
func Default() Options {
	return Options{
		HeldCost:  10 * time.Microsecond,
		CallCost:  5 * time.Microsecond,
		Budget:    0.005,
		BootCalls: 500,
		// runc passes the listener on with it, and refuses profiles that would have it wait for itself.
		AlwaysOpen: []string{"write"},
	}
}

// Plan of one policy. It is not changed after Make, and may be used by many goroutines.
type Plan struct {
	policy   policy.Policy
	options  Options
	entries  []Entry
	tables   map[syscalls.ABI]*table
	bulk     bool
	reloaded bool // a reload was learned
	stopped  bool // a stop was learned
}

// table is what a plan knows of one ABI.
type table struct {
	calls   *policy.Calls
	class   *classes
	entries [syscalls.MaxNr]Entry
	service syscalls.Set // the service lane's calls in all phases
	all     syscalls.Set // every lane's
	byRole  syscalls.Set // calls that some role is known to make
	roles   map[string]role
	unknown role // what every known role may
	whole   role // what the service may, whoever asks
}

// Make the plan of a policy.
func Make(p policy.Policy, o Options) *Plan {
	pl := &Plan{policy: policy.Normal(p), options: o, tables: make(map[syscalls.ABI]*table)}
	total := 0.0
	for _, calls := range pl.policy.ABIs {
		for nr := range servicePhases(calls).All() {
			total += calls.Evidence[nr].Rate
		}
		pl.reloaded = pl.reloaded || !calls.Phases[policy.Reload].Empty()
		pl.stopped = pl.stopped || !calls.Phases[policy.Stop].Empty()
	}
	for _, abi := range slices.Sorted(maps.Keys(pl.policy.ABIs)) {
		if classesOf(abi) == nil {
			continue // no such ABI: refused as a whole
		}
		pl.tables[abi] = pl.table(abi, total)
	}
	return pl
}

func (p *Plan) table(abi syscalls.ABI, total float64) *table {
	calls := p.policy.ABIs[abi]
	t := &table{calls: calls, class: classesOf(abi), service: servicePhases(calls), all: calls.All()}
	placer := placer{
		o: p.options, abi: abi, calls: calls, class: t.class, service: t.service, all: t.all, runs: calls.Phases[policy.Run],
		floor: calls.Floor.Union(p.options.Floor[abi]), always: numbers(abi, p.options.AlwaysOpen), total: total,
	}
	var listed []Entry
	for nr := range uint32(syscalls.MaxNr) {
		e := placer.place(nr)
		t.entries[nr] = e
		p.bulk = p.bulk || e.Bulk
		if t.class.known.Has(nr) || t.all.Has(nr) {
			listed = append(listed, e)
		}
	}
	slices.SortFunc(listed, func(a, b Entry) int { return cmp.Compare(a.Call.String(), b.Call.String()) })
	p.entries = append(p.entries, listed...)
	t.makeRoles(p.reloaded)
	return t
}

func servicePhases(c *policy.Calls) (s syscalls.Set) {
	for _, phase := range policy.Phases {
		s = s.Union(c.Phases[phase])
	}
	return s
}

// Entries are all named calls of the policy's ABIs, and what the policy has besides, by ABI and name.
func (p *Plan) Entries() []Entry { return slices.Clone(p.entries) }

// HasBulk reports whether Booting and Running differ.
func (p *Plan) HasBulk() bool { return p.bulk }
