// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/api"
)

// noEngine is how a daemon without engines is started.
var noEngine = []string{"--podman", ""}

// TestAgentKilledWithACallInHand: what a killed agent had received is delivered to nobody again. The next one wakes who
// waits for it, and each call is made once.
func TestAgentKilledWithACallInHand(t *testing.T) {
	ms := newMasters(t)
	s := ms.start(t, "asker")
	s.supervised()
	const calls = 8
	s.does("threads", calls)
	before := s.sockets()

	d := ms.d
	d.pause(t)
	s.does("begin", unix.SYS_SOCKET, 1)
	eventually(t, "all are held", func() (bool, string) { return s.held() == calls, s.threads() })
	listener := d.listener(t)
	for range calls / 2 { // half of them are received, as by an agent that has not come to answer
		receive(t, listener)
	}
	unix.Close(listener)
	d.end(unix.SIGKILL)
	if s.held() != calls || !s.alive() {
		t.Fatalf("without an agent, %d of %d calls wait; %s", s.held(), calls, s.threads())
	}

	d.start(noEngine...)
	if m := s.does("join"); m.good != calls || m.failed != 0 {
		t.Errorf("of %d allowed calls: %+v; %s", calls, m, d.log)
	}
	if made := s.sockets() - before; made != calls {
		t.Errorf("%d calls made %d sockets", calls, made)
	}
	s.works(1)
}

// TestAgentKilledUnderLoad, again and again: nothing hangs, nothing is refused that is allowed, nothing let through that
// is not.
func TestAgentKilledUnderLoad(t *testing.T) {
	ms := newMasters(t)
	s := ms.start(t, "asker")
	s.supervised()
	const rounds, threads, each = 10, 4, 2000
	for i := range rounds {
		s.does("threads", threads)
		s.does("begin", unix.SYS_PERSONALITY, each)
		time.Sleep(time.Duration(i) * 3 * time.Millisecond)
		if !ms.d.end(unix.SIGKILL) {
			t.Fatalf("the agent ended by itself: %v, %s", ms.d.err, ms.d.log)
		}
		ms.d.start(noEngine...)
		if m := s.does("join"); m.good != threads*each || m.failed != 0 {
			t.Fatalf("round %d: of %d allowed calls: %+v; %s", i, threads*each, m, ms.d.log)
		}
		s.refused(1)
	}
	s.works(1)
}

// TestHolderKilled: the agent starts another and gives it everything, so that the agent may be killed then, too.
func TestHolderKilled(t *testing.T) {
	ms := newMasters(t)
	s := ms.start(t, "asker")
	s.supervised()
	first := ms.d.holder()
	if first == 0 {
		t.Fatal("no holder runs")
	}
	if err := unix.Kill(first, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s.allowed(unix.SYS_PERSONALITY, 100)
	var second int
	eventually(t, "another holder has the listener", func() (bool, string) {
		second = ms.d.holder()
		return second != 0 && second != first && len(listenersOf(second)) == 1, fmt.Sprint(second, listenersOf(second))
	})
	s.works(1)

	s.does("threads", 4)
	ms.d.end(unix.SIGKILL)
	s.does("begin", unix.SYS_PERSONALITY, 1)
	ms.d.start(noEngine...)
	if m := s.does("join"); m.good != 4 || m.failed != 0 {
		t.Errorf("allowed calls: %+v", m)
	}
	s.works(1)
}

// TestHolderAndAgentKilled: what is held then fails, and the container goes on with what is open. The next agent brings a
// new filter with a new listener.
func TestHolderAndAgentKilled(t *testing.T) {
	ms := newMasters(t)
	s := ms.start(t, "asker")
	s.supervised()
	s.does("threads", 8)
	d := ms.d
	d.pause(t)
	s.does("begin", unix.SYS_PERSONALITY, 1)
	eventually(t, "all are held", func() (bool, string) { return s.held() == 8, s.threads() })
	holder := d.holder()
	if err := unix.Kill(holder, unix.SIGKILL); err != nil || holder == 0 {
		t.Fatal(holder, err)
	}
	d.end(unix.SIGKILL)
	if m := s.does("join"); m.good != 0 || m.errno != unix.ENOSYS {
		t.Errorf("nobody can answer, and the calls came to %+v", m)
	}
	if m := s.does("call", unix.SYS_PERSONALITY, 3); m.failed != 3 || m.errno != unix.ENOSYS {
		t.Errorf("nobody can answer, and a call came to %+v", m)
	}

	d.start(noEngine...)
	eventually(t, "its calls are answered again", func() (bool, string) {
		m := s.does("call", unix.SYS_PERSONALITY, 1)
		return m.good == 1, fmt.Sprintf("%+v; %s", m, d.log)
	})
	s.works(2) // the new filter is above the old one
	told := 0
	for _, e := range d.events() {
		if e.Kind == "problem" && strings.Contains(e.Text, "ENOSYS") && strings.Contains(e.Text, s.id) {
			told++
		}
	}
	if told != 1 {
		t.Errorf("it was told %d times: %+v", told, d.events())
	}
	// What is forked and started from now on is under both.
	s.does("fork", 2)
	s.does("threads", 2)
	s.does("begin", unix.SYS_PERSONALITY, 10)
	if m := s.does("join"); m.good != 20 {
		t.Errorf("new threads' calls: %+v", m)
	}
}

// works: the agent says that it supervises the servant, the filters are those, and it answers as it should.
func (s *servant) works(filters int) {
	s.t.Helper()
	c := s.supervised()
	if c.Supervision.Mode != api.ModeEnforce || c.Supervision.Deviates {
		s.t.Errorf("%+v", c.Supervision)
	}
	s.allowed(unix.SYS_PERSONALITY, 5)
	s.refused(5)
	if n := s.filters(); n != filters {
		s.t.Errorf("%d filters, want %d", n, filters)
	}
}

// sockets that the servant has.
func (s *servant) sockets() (n int) {
	names, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", s.pid)) // the pattern is right
	for _, name := range names {
		if to, err := os.Readlink(name); err == nil && strings.HasPrefix(to, "socket:") {
			n++
		}
	}
	return n
}

// pause the agent: when pause returns, no thread of it runs.
func (d *daemon) pause(t *testing.T) {
	t.Helper()
	pid := d.cmd.Process.Pid
	d.signal(t, unix.SIGSTOP)
	t.Cleanup(func() { _ = unix.Kill(pid, unix.SIGCONT) }) // it may have been killed
	eventually(t, "the agent has stopped", func() (bool, string) {
		names, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid)) // the pattern is right
		for _, name := range names {
			if state := stateAt(name); state != 'T' {
				return false, fmt.Sprintf("%s is in state %c", name, state)
			}
		}
		return len(names) > 0, "it has no thread"
	})
}

func (d *daemon) signal(t *testing.T, signal unix.Signal) {
	t.Helper()
	if err := d.cmd.Process.Signal(signal); err != nil {
		t.Fatal(err)
	}
}

// listenersOf a process, by their numbers there.
func listenersOf(pid int) (fds []int) {
	names, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid)) // the pattern is right
	for _, name := range names {
		var fd int
		if to, err := os.Readlink(name); err == nil && to == "anon_inode:seccomp notify" {
			if _, err := fmt.Sscan(filepath.Base(name), &fd); err == nil {
				fds = append(fds, fd)
			}
		}
	}
	return fds
}

// listener of the only container that the agent supervises: a duplicate.
func (d *daemon) listener(t *testing.T) int {
	t.Helper()
	fds := listenersOf(d.cmd.Process.Pid)
	if len(fds) != 1 {
		t.Fatalf("the agent has %d listeners", len(fds))
	}
	pidfd, err := unix.PidfdOpen(d.cmd.Process.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pidfd)
	fd, err := unix.PidfdGetfd(pidfd, fds[0], 0)
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// receive a held call and do nothing about it.
func receive(t *testing.T, listener int) {
	t.Helper()
	const notifRecv = 0xc0502100 // SECCOMP_IOCTL_NOTIF_RECV of struct seccomp_notif, 80 bytes
	var notif [80]byte
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(listener), notifRecv, uintptr(unsafe.Pointer(&notif))); errno != 0 {
		t.Fatalf("receive a held call: %v", errno)
	}
}
