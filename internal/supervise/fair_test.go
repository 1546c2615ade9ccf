// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// A call that waits is answered after at most one share of every container that floods, and one more. There is one worker, and it is
// stopped inside a flood's call until the other container's call is known to wait: what it answers from there on until
// that call's turn is counted, not timed.
func TestFairShare(t *testing.T) {
	for _, test := range []struct {
		name   string
		floods int
		flood  string
		answer Verdict
	}{
		{"one flood", 1, "flood 16", Verdict{Errno: 1}},
		{"three floods", 3, "flood 16", Verdict{Errno: 1}},
		{"a flood with all the parked calls it may have", 1, "flood 300", Verdict{Later: true}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := run(t, 1)
			var answered atomic.Int64
			var stop atomic.Bool
			stopped, goOn := make(chan struct{}), make(chan struct{})
			for i := range test.floods {
				p := newProcess(t, test.flood)
				add(t, s.Supervisor, Container(i), p.listener, func(Held) Verdict {
					if stop.CompareAndSwap(true, false) {
						stopped <- struct{}{}
						<-goOn
					}
					answered.Add(1)
					return test.answer
				})
			}
			victim := newCaller(t)
			var seen atomic.Int64
			add(t, s.Supervisor, 100, victim.listener, func(Held) Verdict {
				seen.Store(answered.Load())
				return Verdict{Errno: 2}
			})
			worst := int64(0)
			for range 200 {
				stop.Store(true)
				<-stopped
				done := victim.start(unix.SYS_GETPPID)
				waiting(t, victim.listener)
				asleep(t, victim.tid) // a listener is readable a moment before its epolls are told
				before := answered.Load()
				goOn <- struct{}{}
				if errno := <-done; errno != 2 {
					t.Fatalf("the other container's call gave %v", errno)
				}
				worst = max(worst, seen.Load()-before)
			}
			// One share more than floods: a call that arrives while the kernel reports its container leaves the container
			// in the root's ready list, disarmed (ep_done_scan), and so before those that come during its turn. Once.
			if limit := int64(share * (test.floods + 1)); worst > limit {
				t.Errorf("a call waited for %d others, want at most %d", worst, limit)
			}
			t.Logf("a call waited for at most %d others", worst)
		})
	}
}

// asleep returns once a thread of this process sleeps.
func asleep(t *testing.T, tid int) {
	t.Helper()
	for {
		line, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/stat", tid))
		if err != nil {
			t.Fatal(err)
		}
		if rest := line[bytes.LastIndexByte(line, ')')+1:]; bytes.HasPrefix(rest, []byte(" S ")) {
			return
		}
		runtime.Gosched()
	}
}

// A flood by 64 threads is answered by one worker at a time, and leaves no memory behind; another container's calls go on.
func TestFlood(t *testing.T) {
	s := run(t, 4)
	p := newProcess(t, "flood 64")
	var inside, most atomic.Int64
	add(t, s.Supervisor, 1, p.listener, func(Held) Verdict {
		n := inside.Add(1)
		defer inside.Add(-1)
		if n > most.Load() {
			most.Store(n)
		}
		return Verdict{Allow: true}
	})
	victim := newCaller(t)
	add(t, s.Supervisor, 2, victim.listener, refuse(unix.EACCES))
	until := func(received uint64) {
		for s.Answered().Received < received {
			if _, errno := victim.call(unix.SYS_GETPPID); errno != unix.EACCES {
				t.Fatalf("the other container's call gave %v", errno)
			}
		}
	}
	until(5_000)
	before, begin := memory(), s.Answered()
	until(begin.Received + 100_000)
	after, told := memory(), s.Answered()
	n := told.Received - begin.Received
	if told.Allowed-begin.Allowed < 1000 || told.Refused-begin.Refused < 1000 {
		t.Errorf("not both were answered: %+v, then %+v", begin, told)
	}
	if most.Load() != 1 {
		t.Errorf("%d calls of one container were judged at once", most.Load())
	}
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 1<<20 {
		t.Errorf("the heap grew by %d bytes over %d calls", grown, n)
	}
	t.Logf("%d held calls, of them %d of the other container: heap %d → %d", n, told.Refused-begin.Refused, before.HeapAlloc, after.HeapAlloc)
	p.kill()
	if c := <-s.Idle(); c != 1 {
		t.Errorf("idle: %d, want 1", c)
	}
}

func memory() (m runtime.MemStats) {
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m
}

// Answering allocates nothing.
func TestNoGarbage(t *testing.T) {
	s := run(t, 1)
	p := newProcess(t, "flood 1")
	var calls atomic.Int64
	add(t, s.Supervisor, 1, p.listener, func(Held) Verdict { calls.Add(1); return Verdict{Allow: true} })
	reach := func(n int64) {
		for calls.Load() < n {
			runtime.Gosched()
		}
	}
	reach(1000)
	before := memory()
	start := calls.Load()
	reach(start + 10_000)
	after := memory()
	if made := after.Mallocs - before.Mallocs; made > 1000 {
		t.Errorf("%d allocations over 10000 calls", made)
	}
}
