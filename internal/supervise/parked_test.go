// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"errors"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// shelf is a judge that parks everything, and what it parked.
type shelf struct {
	calls chan Held
	errno int32
	allow bool
}

func newShelf() *shelf { return &shelf{calls: make(chan Held, 4*maxParked)} }

func (s *shelf) judge(h Held) Verdict {
	s.calls <- h
	return Verdict{Later: true, Allow: s.allow, Errno: s.errno}
}

// parked returns once the supervisor has n parked calls.
func parked(s *Supervisor, n uint64) {
	for s.Answered().Parked != n {
		runtime.Gosched()
	}
}

// TestParkedIsAnsweredOnce: of many answers the first counts, and the caller gets that very one.
func TestParkedIsAnsweredOnce(t *testing.T) {
	s, c, on := run(t, 2), newCaller(t), newShelf()
	add(t, s.Supervisor, 1, c.listener, on.judge)
	for round := range 50 {
		done := c.start(unix.SYS_GETPPID)
		h := <-on.calls
		if round%2 == 0 { // else the first answers may come while the judge has it
			parked(s.Supervisor, 1)
		}
		if !s.Waits(h) {
			t.Fatal("a parked call does not wait")
		}
		var first atomic.Int64
		var group sync.WaitGroup
		for i := range int32(8) {
			group.Go(func() {
				err := s.Settle(h, Verdict{Errno: 1 + i})
				switch {
				case err == nil:
					if !first.CompareAndSwap(0, int64(1+i)) {
						t.Error("two answers were taken")
					}
				case !errors.Is(err, ErrGone):
					t.Errorf("a late answer gives %v", err)
				}
			})
		}
		group.Wait()
		if errno := <-done; int64(errno) != first.Load() {
			t.Fatalf("the caller got %v, the answer taken was %d", errno, first.Load())
		}
		if s.Waits(h) || s.Settle(h, Verdict{Allow: true}) == nil {
			t.Fatal("an answered call waits")
		}
	}
	if got := s.balanced(t); got.Refused != 50 || got.Parked != 0 {
		t.Errorf("counters %+v, want 50 refused", got)
	}
}

// TestSettleVerdicts: what comes of a parked call, whatever the verdict.
func TestSettleVerdicts(t *testing.T) {
	for _, test := range []struct {
		name string
		v    Verdict
		want unix.Errno
	}{
		{"zero", Verdict{}, unix.EPERM},
		{"refused", Verdict{Errno: int32(unix.EACCES)}, unix.EACCES},
		{"allowed", Verdict{Allow: true}, 0},
		{"later again", Verdict{Allow: true, Later: true}, unix.EPERM},
		{"the kernel's restart", Verdict{Errno: 512}, unix.EPERM},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, c, on := run(t, 1), newCaller(t), newShelf()
			add(t, s.Supervisor, 1, c.listener, on.judge)
			done := c.start(unix.SYS_GETPPID)
			if err := s.Settle(<-on.calls, test.v); err != nil {
				t.Fatal(err)
			}
			if errno := <-done; errno != test.want {
				t.Errorf("the caller got %v, want %v", errno, test.want)
			}
			s.balanced(t)
		})
	}
}

// TestSettleInJudge: who settles before the judge returns has answered, whatever the judge says then.
func TestSettleInJudge(t *testing.T) {
	for _, test := range []struct {
		name  string
		after Verdict
	}{
		{"later", Verdict{Later: true}},
		{"allow", Verdict{Allow: true}},
		{"refuse", Verdict{Errno: int32(unix.EBUSY)}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, c := run(t, 1), newCaller(t)
			add(t, s.Supervisor, 1, c.listener, func(h Held) Verdict {
				if !s.Waits(h) {
					t.Error("the call in hand does not wait")
				}
				if err := s.Settle(h, Verdict{Errno: int32(unix.EACCES)}); err != nil {
					t.Error(err)
				}
				return test.after
			})
			for range 20 {
				if _, errno := c.call(unix.SYS_GETPPID); errno != unix.EACCES {
					t.Errorf("the caller got %v, want EACCES", errno)
				}
			}
			if got := s.balanced(t); got.Refused != 20 {
				t.Errorf("counters %+v, want 20 refused", got)
			}
		})
	}
}

// TestSettleWhatIsNotParked: nothing but a call that waits can be answered.
func TestSettleWhatIsNotParked(t *testing.T) {
	s, c := run(t, 1), newCaller(t)
	var last Held
	add(t, s.Supervisor, 1, c.listener, func(h Held) Verdict { last = h; return Verdict{Allow: true} })
	if _, errno := c.call(unix.SYS_GETPPID); errno != 0 {
		t.Fatal(errno)
	}
	s.stop()
	wrong := last
	wrong.Container = 2
	for name, h := range map[string]Held{"answered": last, "another container's": wrong, "zero": {}, "zero of a container": {Container: 1}} {
		if err := s.Settle(h, Verdict{Allow: true}); !errors.Is(err, ErrGone) {
			t.Errorf("%s: %v, want ErrGone", name, err)
		}
		if s.Waits(h) {
			t.Errorf("%s: it waits", name)
		}
	}
}

// TestParkedDelaysNobody: with one worker, a parked call keeps neither its container's nor another's from an answer.
func TestParkedDelaysNobody(t *testing.T) {
	s, on := run(t, 1), newShelf()
	waits, sibling, other := newCaller(t), newCaller(t), newCaller(t)
	add(t, s.Supervisor, 1, waits.listener, on.judge)
	done := waits.start(unix.SYS_GETPPID)
	h := <-on.calls
	add(t, s.Supervisor, 1, sibling.listener, refuse(unix.EACCES))
	add(t, s.Supervisor, 2, other.listener, refuse(unix.EBUSY))
	for range 100 {
		if _, errno := sibling.call(unix.SYS_GETPPID); errno != unix.EACCES {
			t.Fatalf("another thread of the container got %v", errno)
		}
		if _, errno := other.call(unix.SYS_GETPPID); errno != unix.EBUSY {
			t.Fatalf("another container got %v", errno)
		}
	}
	if err := s.Settle(h, Verdict{Allow: true}); err != nil {
		t.Error(err)
	}
	if errno := <-done; errno != 0 {
		t.Errorf("the parked call gave %v", errno)
	}
	s.balanced(t)
}

// TestParkedIsBounded: a container with more waiting threads than there is room for has the others refused at once, and
// when it is killed nothing of it is left.
func TestParkedIsBounded(t *testing.T) {
	s := run(t, 2)
	p := newProcess(t, "flood 300")
	on := &shelf{calls: make(chan Held, 1<<20), errno: int32(unix.EACCES)}
	add(t, s.Supervisor, 1, p.listener, on.judge)
	for s.Answered().Refused < 1000 {
		runtime.Gosched()
	}
	if got := s.Answered(); got.Parked != maxParked || s.Parked(1) != maxParked {
		t.Errorf("%d calls are parked, of the container %d, want %d", got.Parked, s.Parked(1), maxParked)
	}
	p.kill()
	if c := <-s.Idle(); c != 1 || s.Parked(1) != 0 {
		t.Errorf("container %d is idle, with %d calls parked", c, s.Parked(1))
	}
	if got := s.balanced(t); got.Parked != 0 || got.Gone < maxParked {
		t.Errorf("counters %+v, want none parked and %d gone", got, maxParked)
	}
}

// TestParkedCallerIsKilled: the answer comes too late, and says so.
func TestParkedCallerIsKilled(t *testing.T) {
	s, on := run(t, 1), newShelf()
	p := newProcess(t, "flood 1")
	add(t, s.Supervisor, 1, p.listener, on.judge)
	keep, err := s.Duplicates(1) // so that the listener's end is not what tells
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(keep[0]) }()
	h := <-on.calls
	parked(s.Supervisor, 1)
	p.kill()
	if s.Waits(h) {
		t.Error("a killed caller waits")
	}
	if err := s.Settle(h, Verdict{Allow: true}); !errors.Is(err, ErrGone) {
		t.Errorf("got %v, want ErrGone", err)
	}
	if got := s.balanced(t); got.Gone != 1 || got.Parked != 0 {
		t.Errorf("counters %+v, want one gone", got)
	}
}

// TestParkedCallerIsInterrupted: a signal takes the call away, and the caller asks again under another ID. Those it left
// behind are forgotten by themselves, so that interrupting fills no room.
func TestParkedCallerIsInterrupted(t *testing.T) {
	s, c, on := run(t, 1), newCaller(t), newShelf()
	add(t, s.Supervisor, 1, c.listener, on.judge)
	done := c.start(unix.SYS_GETPPID)
	first := <-on.calls
	h := first
	const times = 3 * maxParked
	for range times {
		parks := s.Answered()
		for parks.Received != parks.Parked+parks.Gone {
			parks = s.Answered()
		}
		// The Go runtime takes SIGURG anywhere, and restarts what it interrupts.
		if err := unix.Tgkill(os.Getpid(), c.tid, unix.SIGURG); err != nil {
			t.Fatal(err)
		}
		h = <-on.calls
	}
	if s.Waits(first) {
		t.Error("an interrupted call waits")
	}
	if err := s.Settle(first, Verdict{Allow: true}); !errors.Is(err, ErrGone) {
		t.Errorf("the interrupted call: %v, want ErrGone", err)
	}
	if err := s.Settle(h, Verdict{Errno: int32(unix.EACCES)}); err != nil {
		t.Errorf("the call made again: %v", err)
	}
	if errno := <-done; errno != unix.EACCES {
		t.Errorf("the caller got %v, want EACCES", errno)
	}
	if got := s.Answered(); got.Parked > 2*pruned {
		t.Errorf("%d interrupted calls are still parked", got.Parked)
	}
	if got := s.balanced(t); got.Refused != got.Received-got.Gone || got.Parked != 0 {
		t.Errorf("counters %+v", got)
	}
}

// TestParkedIsRefused when nobody can answer any more, although a holder's duplicate keeps the listener open.
func TestParkedIsRefused(t *testing.T) {
	for _, test := range []struct {
		name string
		end  func(running)
	}{
		{"removed", func(s running) { s.Remove(1) }},
		{"run ends", func(s running) { s.stop() }},
		{"closed", func(s running) { s.stop(); s.Close() }},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, on := run(t, 2), newShelf()
			on.errno = int32(unix.EACCES)
			var ends []<-chan unix.Errno
			for range 20 {
				c := newCaller(t)
				duplicate, err := unix.FcntlInt(uintptr(c.listener), unix.F_DUPFD_CLOEXEC, 0)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = unix.Close(duplicate) })
				add(t, s.Supervisor, 1, c.listener, on.judge)
				ends = append(ends, c.start(unix.SYS_GETPPID))
			}
			parked(s.Supervisor, 20)
			test.end(s)
			for _, end := range ends {
				if errno := <-end; errno != unix.EACCES {
					t.Errorf("a parked call gave %v, want EACCES", errno)
				}
			}
			if err := s.Settle(<-on.calls, Verdict{Allow: true}); !errors.Is(err, ErrGone) {
				t.Errorf("settled afterwards: %v, want ErrGone", err)
			}
			if got := s.balanced(t); got.Refused != 20 || got.Parked != 0 {
				t.Errorf("counters %+v, want 20 refused", got)
			}
		})
	}
}

// TestParkedIsLetThrough where its judge would rather have that than a refusal: when Run ends, and when there is no room.
func TestParkedIsLetThrough(t *testing.T) {
	s, on := run(t, 2), newShelf()
	on.allow, on.errno = true, int32(unix.EACCES)
	c := newCaller(t)
	add(t, s.Supervisor, 1, c.listener, on.judge)
	end := c.start(unix.SYS_GETPPID)
	parked(s.Supervisor, 1)
	s.stop()
	if errno := <-end; errno != 0 {
		t.Errorf("a parked call gave %v when Run ended", errno)
	}

	full := run(t, 2)
	p := newProcess(t, "flood 300")
	all := &shelf{calls: make(chan Held, 1<<20), allow: true}
	add(t, full.Supervisor, 1, p.listener, all.judge)
	for full.Answered().Allowed < 1000 {
		runtime.Gosched()
	}
	if got := full.Answered(); got.Refused != 0 {
		t.Errorf("%+v, want none refused", got)
	}
	p.kill()
}

// TestParkWhileRemoved: a judge that parks a call of a container that was removed meanwhile refuses it.
func TestParkWhileRemoved(t *testing.T) {
	s, c := run(t, 1), newCaller(t)
	add(t, s.Supervisor, 1, c.listener, func(Held) Verdict {
		s.Remove(1)
		return Verdict{Later: true, Errno: int32(unix.EACCES)}
	})
	if _, errno := c.call(unix.SYS_GETPPID); errno != unix.EACCES {
		t.Errorf("the call gave %v, want EACCES", errno)
	}
	s.balanced(t)
}

// TestStaleHeld: what is left of a call whose listener is closed answers nobody, although the next listener has the same
// descriptor and a parked call.
func TestStaleHeld(t *testing.T) {
	s, on := run(t, 1), newShelf()
	a := newCaller(t)
	add(t, s.Supervisor, 1, a.listener, on.judge)
	first := a.start(unix.SYS_GETPPID)
	stale := <-on.calls
	if err := s.Settle(stale, Verdict{}); err != nil {
		t.Fatal(err)
	}
	<-first
	a.end()
	<-s.Idle()
	b := newCaller(t)
	if b.listener != a.listener {
		t.Fatalf("the next listener is descriptor %d, not %d again: this test tests nothing", b.listener, a.listener)
	}
	add(t, s.Supervisor, 1, b.listener, nil)
	second := b.start(unix.SYS_GETPPID)
	h := <-on.calls
	parked(s.Supervisor, 1)
	if err := s.Settle(stale, Verdict{Allow: true}); !errors.Is(err, ErrGone) || s.Waits(stale) {
		t.Errorf("the stale call: %v, want ErrGone", err)
	}
	if !s.Waits(h) {
		t.Error("the parked call no longer waits")
	}
	if err := s.Settle(h, Verdict{Errno: 7}); err != nil {
		t.Error(err)
	}
	if errno := <-second; errno != 7 {
		t.Errorf("the parked call gave %v, want 7", errno)
	}
	s.balanced(t)
}

// TestParkedStorm: floods are parked and settled by several goroutines while their processes are killed and their
// containers removed. Every call is accounted for, and none is left.
func TestParkedStorm(t *testing.T) {
	s := run(t, 4)
	on := newShelf()
	stop := make(chan struct{})
	var settlers sync.WaitGroup
	var settled, gone atomic.Uint64
	for i := range 4 {
		settlers.Go(func() {
			for {
				select {
				case h := <-on.calls:
					switch err := s.Settle(h, Verdict{Allow: i%2 == 0}); {
					case err == nil:
						settled.Add(1)
					case errors.Is(err, ErrGone):
						gone.Add(1)
					default:
						t.Error(err)
					}
				case <-stop:
					return
				}
			}
		})
	}
	judge := func(h Held) Verdict {
		select {
		case on.calls <- h:
			return Verdict{Later: true}
		default:
			return Verdict{}
		}
	}
	for round := range 6 {
		c := Container(round)
		p := newProcess(t, "flood 40")
		add(t, s.Supervisor, c, p.listener, judge)
		for enough := settled.Load() + 2000; settled.Load() < enough; {
			runtime.Gosched()
		}
		if round%2 == 0 {
			s.Remove(c)
			p.kill()
			continue
		}
		p.kill()
		if idle := <-s.Idle(); idle != c {
			t.Errorf("container %d is idle, want %d", idle, c)
		}
	}
	s.stop()
	close(stop)
	settlers.Wait()
	got := balanced(t, s.Supervisor)
	if got.Parked != 0 || got.Allowed+got.Refused < settled.Load() {
		t.Errorf("counters %+v, %d were settled", got, settled.Load())
	}
	t.Logf("%d settled, %d gone before; %+v", settled.Load(), gone.Load(), got)
}
