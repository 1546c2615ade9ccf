// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"sync"
	"time"

	"github.com/whittle-sec/whittle/internal/syscalls"
)

// Key is what makes two held calls the same for a journal.
type Key struct {
	Lane    string
	Phase   string
	Role    string
	Call    syscalls.Call
	Allowed bool
	Errno   int32 // of a refusal; beside Allowed, of the refusal that it would have been
	Why     string
}

// Line is how often a key was held, and one example of it.
type Line struct {
	Key
	Count       uint64
	First, Last time.Time
	TID         int // of the first
	Comm        string
}

// Other is the reason in a line that stands for several keys, when there are too many to keep apart.
const Other = "other"

// Bounds of a tally. A container makes keys as it likes, by naming programs; what exceeds the first bound is told apart
// by lane and call only, and what exceeds the second by the answer only.
const (
	maxKeys     = 512
	maxPrecise  = maxKeys * 3 / 4
	maxTallied  = maxKeys - 2 // the two that remain stand for everything else: allowed, refused
	maxKeyText  = 128
	maxReason   = 320
	maxCommText = 16
)

// Tally counts the held calls of one container. A flood makes counters, not rows: its reader is woken when a key is new
// or its count has reached a power of ten.
type Tally struct {
	wake chan struct{}

	mu    sync.Mutex
	lines map[Key]*tallied
}

type tallied struct {
	Line
	due  uint64 // the count at which the reader shall hear of it: 1, 10, 100 …
	told bool   // the reader has heard of everything up to the last such count
}

func NewTally() *Tally {
	return &Tally{wake: make(chan struct{}, 1), lines: make(map[Key]*tallied)}
}

// Note one held call. comm is asked only of a line's first call, so that a flood is not read about each time. It never
// blocks but for that, other Notes and readers.
func (t *Tally) Note(k Key, at time.Time, tid int, comm func() string) {
	k.Lane, k.Role, k.Why = cut(k.Lane, maxKeyText), cut(k.Role, maxKeyText), cut(k.Why, maxReason)
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.line(k)
	if l.Count == 0 {
		l.First, l.TID, l.Comm, l.due, l.told = at, tid, cut(comm(), maxCommText), 1, true
	}
	l.Last = at
	l.Count++
	if l.Count < l.due {
		return
	}
	l.told = false
	l.due *= 10
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// line of a key, or of the coarser key that there is still room for.
func (t *Tally) line(k Key) *tallied {
	byCall := Key{Lane: k.Lane, Call: k.Call, Allowed: k.Allowed, Errno: k.Errno, Why: Other}
	for _, try := range [...]struct {
		key  Key
		room int
	}{{k, maxPrecise}, {byCall, maxTallied}, {Key{Allowed: k.Allowed, Why: Other}, maxKeys}} {
		if l := t.lines[try.key]; l != nil {
			return l
		}
		if len(t.lines) < try.room {
			l := &tallied{Line: Line{Key: try.key}}
			t.lines[try.key] = l
			return l
		}
	}
	panic("supervise: a tally without room for its last two lines")
}

// Wake is readable when Due has lines.
func (t *Tally) Wake() <-chan struct{} { return t.wake }

// Due returns the lines that are new, or whose count has reached a power of ten, since the last Due, in no order.
func (t *Tally) Due() (out []Line) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, l := range t.lines {
		if !l.told {
			l.told = true
			out = append(out, l.Line)
		}
	}
	return out
}

// Snapshot returns all lines, in no order.
func (t *Tally) Snapshot() []Line {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]Line, 0, len(t.lines))
	for _, l := range t.lines {
		out = append(out, l.Line)
	}
	return out
}

// cut bounds a text of the container's; a piece of a longer string would keep the whole alive.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return string([]byte(s[:n]))
}
