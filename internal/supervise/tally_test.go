// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/whittle-sec/whittle/internal/syscalls"
)

var execve = syscalls.Call{ABI: syscalls.X86_64, Nr: 59}

func woken(t *Tally) bool {
	select {
	case <-t.Wake():
		return true
	default:
		return false
	}
}

// The reader hears of the first and of each tenfold, and of nothing twice.
func TestTallyTenfold(t *testing.T) {
	tally := NewTally()
	key := Key{Lane: "service", Role: "nginx", Call: execve, Why: "not of its role"}
	start := time.Unix(1000, 0)
	var due []uint64
	for i := range 12345 {
		tally.Note(key, start.Add(time.Duration(i)*time.Second), 10+i, named(fmt.Sprint("worker", i)))
		lines := tally.Due()
		if woken(tally) != (len(lines) == 1) {
			t.Fatalf("after %d: woken or not, %d lines are due", i+1, len(lines))
		}
		for _, l := range lines {
			due = append(due, l.Count)
		}
	}
	if diff := cmp.Diff([]uint64{1, 10, 100, 1000, 10000}, due); diff != "" {
		t.Error(diff)
	}
	want := []Line{{Key: key, Count: 12345, First: start, Last: start.Add(12344 * time.Second), TID: 10, Comm: "worker0"}}
	if diff := cmp.Diff(want, tally.Snapshot()); diff != "" {
		t.Error(diff)
	}
}

// A reader that is late hears once, with the count of then.
func TestTallyLateReader(t *testing.T) {
	tally := NewTally()
	for range 250 {
		tally.Note(Key{Call: execve}, time.Time{}, 1, named("sh"))
	}
	if !woken(tally) || woken(tally) {
		t.Error("not woken once")
	}
	if lines := tally.Due(); len(lines) != 1 || lines[0].Count != 250 {
		t.Errorf("due: %+v", lines)
	}
	if lines := tally.Due(); len(lines) != 0 {
		t.Errorf("due again: %+v", lines)
	}
}

// However many programs a container names, the tally is bounded, loses no count, and still tells refused from allowed.
func TestTallyBounded(t *testing.T) {
	tally := NewTally()
	const programs, numbers = 1000, 600
	for i := range programs {
		tally.Note(Key{Lane: "service", Role: fmt.Sprint("/tmp/", i), Call: execve, Why: "unknown role"}, time.Time{}, i, named(strings.Repeat("c", 99)))
	}
	for i := range uint32(numbers) {
		call := syscalls.Call{ABI: syscalls.X86_64, Nr: i}
		tally.Note(Key{Lane: "exec", Role: strings.Repeat("r", 5000), Call: call, Allowed: i%3 == 0, Why: strings.Repeat("w", 5000)}, time.Time{}, 1, named("c"))
	}
	lines := tally.Snapshot()
	if len(lines) != maxKeys {
		t.Errorf("%d lines, want %d", len(lines), maxKeys)
	}
	var count, refusedExecs uint64
	for _, l := range lines {
		count += l.Count
		if l.Call == execve && l.Lane == "service" && !l.Allowed {
			refusedExecs += l.Count
		}
		if len(l.Role) > maxKeyText || len(l.Why) > maxKeyText || len(l.Comm) > maxCommText {
			t.Errorf("a line is longer than it may be: %+v", l)
		}
	}
	if count != programs+numbers {
		t.Errorf("%d calls tallied, want %d", count, programs+numbers)
	}
	if refusedExecs != programs {
		t.Errorf("%d refused execs can still be told, want %d", refusedExecs, programs)
	}
	for _, key := range []Key{{Allowed: true, Why: Other}, {Why: Other}} {
		if l := tally.lines[key]; l == nil || l.Count == 0 {
			t.Errorf("nothing is tallied as %+v", key)
		}
	}
}

func TestTallyConcurrent(t *testing.T) {
	tally := NewTally()
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			for n := range 1000 {
				tally.Note(Key{Role: fmt.Sprint(n % 10), Call: execve}, time.Time{}, i, named(""))
				if woken(tally) {
					tally.Due()
				}
			}
		})
	}
	group.Wait()
	var count uint64
	for _, l := range tally.Snapshot() {
		count += l.Count
	}
	if count != 8000 {
		t.Errorf("%d calls tallied, want 8000", count)
	}
}

func BenchmarkTally(b *testing.B) {
	tally := NewTally()
	key := Key{Lane: "service", Role: "/usr/sbin/nginx", Call: execve, Why: "not of its role"}
	b.ReportAllocs()
	for b.Loop() {
		tally.Note(key, time.Time{}, 1, named("nginx"))
	}
}

func named(comm string) func() string { return func() string { return comm } }
