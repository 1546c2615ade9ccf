// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"context"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/testenv"
)

func TestAddRefuses(t *testing.T) {
	testenv.NeedRoot(t)
	s, err := New(nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	if IsListener(fd) || IsListener(-1) || IsListener(1<<20) {
		t.Error("IsListener takes anything")
	}
	if err := s.Add(1, fd, allow); err == nil {
		t.Error("Add took an eventfd")
	}
	if err := unix.Close(fd); err != unix.EBADF {
		t.Errorf("Add left open what it refused: %v", err)
	}
	c := newCaller(t)
	if !IsListener(c.listener) {
		t.Error("IsListener refuses a listener")
	}
	if err := s.Add(NoContainer, c.listener, allow); err == nil {
		t.Error("Add took a listener of no container")
	}
	if _, errno := c.call(unix.SYS_GETPPID); errno != unix.ENOSYS {
		t.Errorf("a call after its listener was refused gave %v, want ENOSYS", errno)
	}
	s.SetJudge(5, allow)
	s.Remove(5)
	if n := s.Listeners(5); n != 0 {
		t.Errorf("a container that is not there has %d listeners", n)
	}
}

// Removing a container ends its waiting calls with ENOSYS.
func TestRemoveEndsHeldCalls(t *testing.T) {
	s, err := New(nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	c := newCaller(t)
	add(t, s, 1, c.listener, allow)
	done := c.start(unix.SYS_GETPPID)
	waiting(t, c.listener)
	s.Remove(1)
	if errno := <-done; errno != unix.ENOSYS {
		t.Errorf("the held call gave %v, want ENOSYS", errno)
	}
}

// Calls fly while their container is removed: each is answered by the judge or by the kernel, and no descriptor stays.
func TestRemoveWhileCallsFly(t *testing.T) {
	s := run(t, 4)
	epolls := open(t, "anon_inode:[eventpoll]")
	const threads, rounds = 8, 10
	for round := range rounds {
		handle := Container(round)
		var calls, wrong atomic.Int64
		enough := make(chan struct{})
		var group sync.WaitGroup
		for range threads {
			c := newCaller(t)
			add(t, s.Supervisor, handle, c.listener, func(Held) Verdict {
				if calls.Add(1) == 200 {
					close(enough)
				}
				return Verdict{Errno: int32(unix.EACCES)}
			})
			group.Go(func() {
				errno := unix.EACCES
				for errno == unix.EACCES {
					_, errno = c.call(unix.SYS_GETPPID)
				}
				if errno != unix.ENOSYS {
					wrong.Add(1)
				}
				c.end()
			})
		}
		<-enough
		s.Remove(handle)
		group.Wait()
		if wrong.Load() != 0 {
			t.Fatalf("round %d: %d threads ended with another error than ENOSYS", round, wrong.Load())
		}
	}
	s.balanced(t)
	if n := open(t, "anon_inode:[eventpoll]"); n != epolls {
		t.Errorf("%d epoll descriptors open, %d before", n, epolls)
	}
	if n := open(t, "anon_inode:seccomp notify"); n != 0 {
		t.Errorf("%d listeners open", n)
	}
}

// open counts the descriptors of this process that lead to such a file.
func open(t *testing.T, target string) (n int) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if got, err := os.Readlink("/proc/self/fd/" + entry.Name()); err == nil && strings.HasPrefix(got, target) {
			n++
		}
	}
	return n
}

// A judge may remove its own container: the call is answered first.
func TestRemoveFromJudge(t *testing.T) {
	s := run(t, 1)
	c := newCaller(t)
	add(t, s.Supervisor, 1, c.listener, func(Held) Verdict {
		s.Remove(1)
		return Verdict{Errno: int32(unix.EACCES)}
	})
	if _, errno := c.call(unix.SYS_GETPPID); errno != unix.EACCES {
		t.Errorf("the call gave %v, want EACCES", errno)
	}
	if _, errno := c.call(unix.SYS_GETPPID); errno != unix.ENOSYS {
		t.Errorf("the next call gave %v, want ENOSYS", errno)
	}
}

// A container's listeners hang up one by one, and it is idle after the last; it may have one again.
func TestIdle(t *testing.T) {
	s := run(t, 4)
	for range 3 {
		a, b := newCaller(t), newCaller(t)
		add(t, s.Supervisor, 1, a.listener, allow)
		add(t, s.Supervisor, 1, b.listener, nil) // keeps the judge
		for _, c := range []*caller{a, b} {
			if _, errno := c.call(unix.SYS_GETPPID); errno != 0 {
				t.Errorf("a call gave %v", errno)
			}
		}
		a.end()
		select {
		case <-s.Idle():
			t.Error("idle with a listener left")
		default:
		}
		b.end()
		if c := <-s.Idle(); c != 1 || s.Listeners(1) != 0 {
			t.Errorf("idle: %d with %d listeners", c, s.Listeners(1))
		}
	}
}

// A cancelled Run answers the call that it has, leaves the others in the kernel, and whoever holds a duplicate goes on.
func TestHandOver(t *testing.T) {
	testenv.NeedRoot(t)
	s, err := New(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	a, b := newCaller(t), newCaller(t)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	inJudge := make(chan struct{})
	goOn := make(chan struct{})
	add(t, s, 1, a.listener, func(Held) Verdict {
		close(inJudge)
		<-goOn
		return Verdict{Errno: 3}
	})
	duplicate, err := unix.FcntlInt(uintptr(b.listener), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	add(t, s, 1, b.listener, nil)
	go func() { ended <- s.Run(ctx) }()
	first := a.start(unix.SYS_GETPPID)
	<-inJudge
	second := b.start(unix.SYS_GETPPID)
	waiting(t, duplicate)
	cancel()
	for !s.ending.Load() {
	}
	close(goOn)
	if errno := <-first; errno != 3 {
		t.Errorf("the call that was received gave %v, want 3", errno)
	}
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
	if err := s.Run(context.Background()); err == nil {
		t.Error("Run ran twice")
	}
	waiting(t, duplicate) // still there
	s.Close()
	next := run(t, 1)
	add(t, next.Supervisor, 9, duplicate, refuse(4))
	if errno := <-second; errno != 4 {
		t.Errorf("the call that was left gave %v, want 4", errno)
	}
	balanced(t, s)
}

// A listener that hung up leaves nothing behind, although a holder has a duplicate: the container's next listener, which
// gets the same descriptor, is not taken for it.
func TestHangUpWithDuplicate(t *testing.T) {
	s := run(t, 1)
	a := newCaller(t)
	add(t, s.Supervisor, 1, a.listener, refuse(5))
	duplicates, err := s.Duplicates(1)
	if err != nil || len(duplicates) != 1 || !IsListener(duplicates[0]) {
		t.Fatalf("duplicates %v, %v, want one listener", duplicates, err)
	}
	t.Cleanup(func() { _ = unix.Close(duplicates[0]) })
	a.end()
	<-s.Idle()
	b := newCaller(t)
	if b.listener != a.listener {
		t.Fatalf("the next listener is descriptor %d, not %d again: this test tests nothing", b.listener, a.listener)
	}
	add(t, s.Supervisor, 1, b.listener, nil)
	for range 100 {
		if _, errno := b.call(unix.SYS_GETPPID); errno != 5 {
			t.Fatalf("a call of the next listener gave %v, want 5", errno)
		}
	}
	if n := s.Listeners(1); n != 1 {
		t.Errorf("%d listeners, want 1", n)
	}
}
