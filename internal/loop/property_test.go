// SPDX-License-Identifier: Apache-2.0

package loop

import (
	"encoding/json"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/whittle-sec/whittle/internal/oracle"
)

// world is what surrounds a Machine, and what it must never see: it keeps its own account.
type world struct {
	t   *rapid.T
	m   *Machine
	now time.Time

	asked     map[Key]bool // calls that production was refused
	reached   map[Key]bool // since the last abort or failure that dropped the key; what may be committed
	committed map[Key]bool
	loops     int
	vain      int // loops that ended without teaching what caused them
	cause     Key
	attacked  bool
	began     time.Time
	away      []Visit
}

func (w *world) check() {
	switch w.m.State() {
	case Production:
	case ToOracle, InOracle, ToProduction, Broken:
		if w.loops != int(w.m.Saved().Loops) {
			w.t.Fatalf("%d loops were started, the machine counts %d", w.loops, w.m.Saved().Loops)
		}
	default:
		w.t.Fatalf("state %q", w.m.State())
	}
	if w.loops > len(w.asked)+w.vain+1 {
		w.t.Fatalf("%d loops for %d calls, %d in vain", w.loops, len(w.asked), w.vain)
	}
}

func (w *world) key() Key { return key(rapid.Uint32Range(0, 30).Draw(w.t, "call")) }

func (w *world) refused() {
	k := w.key()
	before := w.m.State()
	d := w.m.Refused(w.now, k, "")
	w.asked[k] = true
	switch d.Answer {
	case StartLoop:
		if before != Production {
			w.t.Fatalf("a second loop in state %s", before)
		}
		w.loops++
		w.began, w.cause, w.attacked = w.now, k, false
	case Join:
		if before != ToOracle && before != InOracle {
			w.t.Fatalf("joined a loop in state %s", before)
		}
	case Deny:
		if w.committed[k] {
			w.t.Fatalf("%s was committed and is denied: %s", k, d.Why)
		}
		if d.Why == "" {
			w.t.Fatal("denied without a reason")
		}
	}
}

func (w *world) reach() {
	k := w.key()
	before := w.m.State()
	if w.m.Reached(w.now, k, 1) {
		if before == Production || before == Broken || w.attacked {
			w.t.Fatalf("reached in state %s (attacked: %v)", before, w.attacked)
		}
		w.reached[k] = true
	}
}

// lost: what is not due by now must be reached anew.
func (w *world) lost() {
	due := map[Key]bool{}
	for _, c := range w.m.Saved().Candidates {
		due[c.Key] = c.Due
	}
	for k := range w.reached {
		if !due[k] {
			delete(w.reached, k)
		}
	}
}

func (w *world) abort() {
	if w.m.State() == Production {
		return
	}
	w.m.Aborted(w.now, oracle.Report{Summary: "x"})
	w.attacked = true
	w.lost()
}

func (w *world) fail() {
	before := w.m.State()
	w.m.Failed(w.now, "x")
	if before == ToOracle || before == InOracle {
		w.lost()
	}
}

func (w *world) tick() {
	a := w.m.Tick(w.now)
	if w.m.State() == Broken {
		w.lost()
	}
	for _, k := range a.Commit {
		if !w.reached[k] {
			w.t.Fatalf("%s is to be committed and was not reached since an abort", k)
		}
	}
	// The agent may die between the two.
	if rapid.Bool().Draw(w.t, "stored") {
		w.m.Committed(w.now, a.Commit)
		for _, k := range a.Commit {
			w.committed[k] = true
		}
	}
}

func (w *world) returned() {
	if w.m.State() == Production {
		return
	}
	w.m.Returned(w.now)
	w.lost()
	w.away = append(w.away, Visit{Start: w.began, End: w.now})
	if !w.committed[w.cause] && w.m.candidate(w.cause) < 0 {
		w.vain++
	}
	w.bounded()
}

// bounded: the time away in the hour before the end of each loop is within the limits. The world is a second or two late
// each time.
func (w *world) bounded() {
	var away time.Duration
	for _, v := range w.away {
		away += within(v, w.now)
	}
	limit := w.m.limits.hourly() + w.m.limits.ConvergeTime + time.Duration(len(w.away))*10*time.Second
	if away > limit {
		w.t.Fatalf("away for %s in the hour before %s, the limit is %s", away, w.now.Sub(start), limit)
	}
}

func (w *world) restart() {
	data, err := json.Marshal(w.m.Saved())
	if err != nil {
		w.t.Fatalf("marshal: %v", err)
	}
	var saved Saved
	if err := json.Unmarshal(data, &saved); err != nil {
		w.t.Fatalf("unmarshal: %v", err)
	}
	w.m = New(w.m.limits, saved)
}

// pass lets time pass: as it comes in production, and with a tick each second while a loop is under way, after which whoever
// moves the service has it back within five seconds.
func (w *world) pass() {
	for left := rapid.IntRange(0, 1200).Draw(w.t, "seconds"); left > 0; left-- {
		if w.m.State() == Production {
			w.now = w.now.Add(time.Duration(left) * time.Second)
			return
		}
		w.now = w.now.Add(time.Second)
		w.tick()
		if s := w.m.State(); s == ToProduction || s == Broken {
			w.now = w.now.Add(time.Duration(rapid.IntRange(0, 5).Draw(w.t, "late")) * time.Second)
			w.returned()
			return
		}
	}
}

func TestMachine(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &world{
			t: t, m: New(Limits{ConvergeTime: 10 * time.Minute, ConvergeLoops: 8}, Saved{}), now: start,
			asked: map[Key]bool{}, reached: map[Key]bool{}, committed: map[Key]bool{},
		}
		moves := []func(){
			w.refused, w.refused, w.reach, w.reach, func() { w.m.Serving(w.now) }, w.tick, w.pass, w.pass, w.abort, w.fail, w.returned, w.restart,
			func() { w.now = w.now.Add(300 * time.Millisecond) },
		}
		for range rapid.IntRange(1, 150).Draw(t, "moves") {
			moves[rapid.IntRange(0, len(moves)-1).Draw(t, "move")]()
			w.check()
		}
	})
}

// Whatever was stored, and whatever comes: no panic, and it gets back to production.
func FuzzSaved(f *testing.F) {
	f.Add([]byte(`{"state":"oracle","candidates":[{"key":null,"since":"2026-01-01T00:00:00Z"}]}`), []byte{1, 2, 3, 4, 5, 6, 7, 8})
	f.Add([]byte(`{"state":"nonsense","visits":[{"start":"2026-01-01T00:00:00Z","end":"2027-01-01T00:00:00Z","weight":9999999}]}`), []byte{7, 6, 5, 4, 0})
	f.Add([]byte(`{"candidates":[{"key":{"abi":"x86_64","call":"read","role":"","phase":"run"},"due":true,"since":"2026-01-01T00:00:00Z"}]}`), []byte{5, 5})
	f.Fuzz(func(t *testing.T, data, inputs []byte) {
		var saved Saved
		if json.Unmarshal(data, &saved) != nil {
			return
		}
		m := New(Limits{}, saved)
		now := start
		for _, b := range inputs[:min(len(inputs), 200)] {
			k := key(uint32(b >> 4))
			switch b % 10 {
			case 0:
				now = now.Add(time.Duration(b) * time.Minute)
			case 1:
				m.Refused(now, k, string(data))
			case 2:
				m.Reached(now, k, int(b))
			case 3:
				m.Serving(now)
			case 4:
				m.Aborted(now, oracle.Report{})
			case 5:
				m.Committed(now, slices.Concat(m.Tick(now).Commit, []Key{k}))
			case 6:
				m.Failed(now, "x")
			case 7:
				m.Returned(now)
			case 8:
				m.Status(now)
				m.Record()
			case 9:
				now = now.Add(-time.Duration(b) * time.Second)
				m.Forget(now, []Key{k})
			}
		}
		m.Tick(now)
		m.Returned(now)
		if m.State() != Production {
			t.Errorf("in state %s after production returned", m.State())
		}
	})
}
