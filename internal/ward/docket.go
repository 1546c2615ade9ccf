// SPDX-License-Identifier: Apache-2.0

package ward

import (
	"sync"
	"time"

	"github.com/whittle-sec/whittle/internal/judge"
	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// What is kept of one container, which makes cases as it likes: by naming programs, and by asking for what is refused. Cases
// beyond the first number are told apart by call only; what comes beyond the second is told of in the tally only. What is
// refused leaves room for what is let through, so that nobody hides the one behind the other.
const (
	preciseRefused, maxRefused = 256, 384
	preciseAllowed, maxAllowed = 64, 128
)

// Heard is a case of this container, when it first came.
type Heard struct {
	judge.Case
	First time.Time
	TID   int // of the first
	Comm  string
}

// caseKey is what makes two cases the same for a journal.
type caseKey struct {
	call    syscalls.Call
	lane    observe.Lane
	phase   policy.Phase
	role    string
	verdict judge.Verdict
	class   judge.Class
	carrier judge.Carrier
}

// Docket has the cases that the panel decided for one container, each once.
type Docket struct {
	mu    sync.Mutex
	heard map[caseKey]bool
	// refused and allowed are how many of heard are.
	refused, allowed int
	fresh            []Heard
	wake             chan struct{}
}

func newDocket() *Docket { return &Docket{heard: map[caseKey]bool{}, wake: make(chan struct{}, 1)} }

func (d *Docket) note(c judge.Case, at time.Time, tid int) {
	q := c.Question
	key := caseKey{q.Call, q.Lane, q.Phase, q.Role, c.Decision.Verdict, c.Evidence.Origin.Class, c.Evidence.Import.Carrier}
	if !d.isNew(key) {
		return
	}
	heard := Heard{Case: c, First: at, TID: tid, Comm: commOf(tid)}
	d.mu.Lock()
	d.fresh = append(d.fresh, heard)
	d.mu.Unlock()
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// isNew tells whether a case was not heard before, and is told of.
func (d *Docket) isNew(key caseKey) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	count, precise, most := &d.refused, preciseRefused, maxRefused
	if key.verdict >= judge.Once {
		count, precise, most = &d.allowed, preciseAllowed, maxAllowed
	}
	if d.heard[key] {
		return false
	}
	if *count >= precise {
		key = caseKey{call: key.call, verdict: key.verdict}
	}
	if d.heard[key] || *count >= most {
		return false
	}
	*count++
	d.heard[key] = true
	return true
}

// Due are the cases that were not told yet, in the order in which they came.
func (d *Docket) Due() []Heard {
	d.mu.Lock()
	defer d.mu.Unlock()
	fresh := d.fresh
	d.fresh = nil
	return fresh
}

// Wake is readable when Due has cases.
func (d *Docket) Wake() <-chan struct{} { return d.wake }
