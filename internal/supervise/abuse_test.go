// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"os"
	"os/signal"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// untilGone returns once the caller of a held call no longer waits.
func untilGone(h Held) {
	for h.Valid() {
		runtime.Gosched()
	}
}

// pipe whose ends the test owns; the reading end does not block.
func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close(); _ = w.Close() })
	return r, w
}

// inPipe counts what was written: how often the allowed calls ran.
func inPipe(t *testing.T, r *os.File) (n int) {
	t.Helper()
	raw, err := r.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	err = raw.Control(func(fd uintptr) { n, err = unix.IoctlGetInt(int(fd), unix.TIOCINQ) })
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// noRestart takes SA_RESTART from the handler that Go has for a signal.
func noRestart(t *testing.T, sig unix.Signal) {
	t.Helper()
	var action [4]uint64 // struct sigaction of the kernel: handler, flags, restorer, mask
	_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), 0, uintptr(unsafe.Pointer(&action)), 8, 0, 0)
	if errno != 0 {
		t.Fatal(errno)
	}
	const restart = 0x10000000
	action[1] &^= restart
	_, _, errno = unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(&action)), 0, 8, 0, 0)
	if errno != 0 {
		t.Fatal(errno)
	}
}

// A call that a signal interrupts while it is judged is not run by that answer. It runs once when it starts again.
func TestInterruptedCalls(t *testing.T) {
	for _, test := range []struct {
		name    string
		sig     unix.Signal
		restart bool
		want    unix.Errno
		runs    int
	}{
		{"SA_RESTART", unix.SIGUSR1, true, 0, 1},
		{"no SA_RESTART", unix.SIGUSR2, false, unix.EINTR, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			signals := make(chan os.Signal, 1)
			signal.Notify(signals, test.sig)
			defer signal.Stop(signals)
			if !test.restart {
				noRestart(t, test.sig)
			}
			s := run(t, 1)
			c := newCaller(t)
			r, w := pipe(t)
			ids := make(map[uint64]bool)
			add(t, s.Supervisor, 1, c.listener, func(h Held) Verdict {
				ids[h.ID] = true
				if len(ids) == 1 {
					if err := unix.Tgkill(os.Getpid(), h.TID, test.sig); err != nil {
						t.Error(err)
					}
					untilGone(h)
				}
				return Verdict{Allow: true}
			})
			_, errno := c.call(unix.SYS_WRITE, w.Fd(), bytePointer(), 1)
			if n := inPipe(t, r); errno != test.want || n != test.runs {
				t.Errorf("the call gave %v and ran %d times, want %v and %d", errno, n, test.want, test.runs)
			}
			if got := s.balanced(t); got.Gone != 1 || int(got.Allowed) != test.runs || len(ids) != 1+test.runs {
				t.Errorf("counters %+v, %d ids", got, len(ids))
			}
		})
	}
}

// Processes killed with calls in every state: no answer goes astray, and the container is reported idle.
func TestKilledCallers(t *testing.T) {
	s := run(t, 4)
	const rounds, threads = 8, 8
	var ran int
	for round := range rounds {
		r, w := pipe(t)
		p := newProcess(t, "write 8", w)
		c := Container(round)
		var calls int
		before := int(s.Answered().Allowed)
		add(t, s.Supervisor, c, p.listener, func(h Held) Verdict {
			if calls++; calls == 50+round*7 {
				if err := p.cmd.Process.Kill(); err != nil {
					t.Error(err)
				}
				untilGone(h)
			}
			return Verdict{Allow: true}
		})
		if got := <-s.Idle(); got != c || s.Listeners(c) != 0 {
			t.Errorf("idle: container %d with %d listeners, want %d without", got, s.Listeners(c), c)
		}
		p.kill()
		// Those that were allowed at the moment of the kill may have ended instead, one a thread; no more and no less ran.
		n, allowed := inPipe(t, r), int(s.Answered().Allowed)-before
		if n > allowed || n < allowed-threads {
			t.Errorf("%d calls ran of the %d allowed ones", n, allowed)
		}
		ran += n
		s.Remove(c)
	}
	if got := s.balanced(t); got.Gone < rounds || uint64(ran) > got.Allowed || got.Refused != 0 {
		t.Errorf("%d calls ran, counters %+v", ran, got)
	}
}

// An exec ends the other threads with their held calls; the new program is under the same listener.
func TestExecDuringHeldCall(t *testing.T) {
	s := run(t, 1)
	r, w := pipe(t)
	p := newProcess(t, "exec", w)
	var calls int
	add(t, s.Supervisor, 1, p.listener, func(h Held) Verdict {
		if calls++; calls == 1 {
			p.tell("exec")
			untilGone(h)
			return Verdict{Allow: true}
		}
		return Verdict{Errno: int32(unix.EACCES)}
	})
	if got := p.line(); got != "13" {
		t.Errorf("the new program's call gave errno %s, want 13", got)
	}
	if c := <-s.Idle(); c != 1 {
		t.Errorf("idle: %d, want 1", c)
	}
	p.kill()
	if n := inPipe(t, r); n != 0 {
		t.Errorf("the call of the thread that exec ended ran %d times", n)
	}
	if got := s.balanced(t); got.Gone != 1 || got.Refused != 1 {
		t.Errorf("counters %+v, want 1 gone, 1 refused", got)
	}
}

// 200 containers at once, each with a judge of its own, and none is given another's answer.
func TestManyContainers(t *testing.T) {
	s := run(t, 4)
	const containers, calls = 200, 20
	var wrong atomic.Int32
	var group sync.WaitGroup
	for i := range containers {
		c := newCaller(t)
		handle := Container(i)<<32 | Container(i) // both halves of the handle count
		add(t, s.Supervisor, handle, c.listener, func(h Held) Verdict {
			if h.Container != handle || h.TID != c.tid {
				wrong.Add(1)
			}
			return Verdict{Errno: int32(1 + i)}
		})
		group.Go(func() {
			for range calls {
				if _, errno := c.call(unix.SYS_GETPPID); errno != unix.Errno(1+i) {
					wrong.Add(1)
				}
			}
		})
	}
	group.Wait()
	if n := wrong.Load(); n != 0 {
		t.Errorf("%d wrong calls or answers", n)
	}
	if got := s.balanced(t); got.Refused != containers*calls {
		t.Errorf("counters %+v, want %d refused", got, containers*calls)
	}
}
