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

// maxDocket bounds the cases that are kept of one container. What comes beyond is judged, and told of in the tally only.
const maxDocket = 512

// Heard is a case of this container and how often it came.
type Heard struct {
	judge.Case
	Count uint64
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
	heard map[caseKey]uint64
	fresh []Heard
	wake  chan struct{}
}

func newDocket() *Docket { return &Docket{heard: map[caseKey]uint64{}, wake: make(chan struct{}, 1)} }

func (d *Docket) note(c judge.Case, at time.Time, tid int) {
	q := c.Question
	key := caseKey{q.Call, q.Lane, q.Phase, q.Role, c.Decision.Verdict, c.Evidence.Origin.Class, c.Evidence.Import.Carrier}
	d.mu.Lock()
	count, known := d.heard[key]
	if !known && len(d.heard) >= maxDocket {
		d.mu.Unlock()
		return
	}
	d.heard[key] = count + 1
	d.mu.Unlock()
	if known {
		return
	}
	heard := Heard{Case: c, Count: 1, First: at, TID: tid, Comm: commOf(tid)}
	d.mu.Lock()
	d.fresh = append(d.fresh, heard)
	d.mu.Unlock()
	select {
	case d.wake <- struct{}{}:
	default:
	}
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
