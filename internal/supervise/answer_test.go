// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/syscalls"
)

func bytePointer() uintptr { return uintptr(unsafe.Pointer(&byteToWrite[0])) }

// Every number is held and answered as its judge says, and the judge is told what was called.
func TestEveryNumber(t *testing.T) {
	s := run(t, 4)
	c := newCaller(t)
	errnoOf := func(nr uint32) unix.Errno { return unix.Errno(1 + nr%133) }
	var judged atomic.Pointer[Held]
	var asked uint64
	add(t, s.Supervisor, 7, c.listener, func(h Held) Verdict {
		if !h.Valid() {
			t.Errorf("call %v is not valid while it is judged", h.Call)
		}
		judged.Store(&h)
		return Verdict{Errno: int32(errnoOf(h.Call.Nr))}
	})
	native, _ := syscalls.Native(runtime.GOARCH)
	for nr := range uint32(601) {
		if exempt := (syscalls.Call{ABI: native, Nr: nr}).String(); exempt == "uretprobe" || exempt == "uprobe" {
			continue // since Linux 6.14 no filter sees them, and the kernel answers SIGILL outside its own trampolines
		}
		_, errno := c.call(uintptr(nr), 1, 2, 3, 4, 1<<40)
		asked++
		if errno != errnoOf(nr) {
			t.Errorf("call %d gave %v, want %v", nr, errno, errnoOf(nr))
		}
		last := *judged.Load()
		want := Held{Container: 7, ID: last.ID, TID: c.tid, Call: syscalls.Call{ABI: native, Nr: nr},
			Args: [6]uint64{1, 2, 3, 4, 1 << 40, magic}, IP: last.IP, listener: last.listener}
		if last != want || last.IP == 0 {
			t.Errorf("call %d: the judge got %+v, want %+v", nr, last, want)
		}
	}
	if judged.Load().Valid() {
		t.Error("an answered call is still valid")
	}
	for _, nr := range []uintptr{syscalls.MaxNr, 5000, 0x3fffffff} {
		if _, errno := c.call(nr); errno != unix.ENOSYS {
			t.Errorf("call %d, which has no name, gave %v, want ENOSYS", nr, errno)
		}
	}
	if got := s.balanced(t); got.Refused != asked+3 || got.Unknown != 3 || asked < 599 {
		t.Errorf("counters %+v, want %d refused, 3 of them unknown", got, asked+3)
	}
}

func TestRefusalsAreErrors(t *testing.T) {
	panics := func(Held) Verdict { panic("a judge with a fault") }
	for _, test := range []struct {
		name  string
		judge Judge
		want  unix.Errno
	}{
		{"zero verdict", func(Held) Verdict { return Verdict{} }, unix.EPERM},
		{"no judge", nil, unix.EPERM},
		{"negative", refuse(^unix.Errno(0)), unix.EPERM},
		{"the kernel's restart", refuse(512), unix.EPERM},
		{"past every errno", refuse(5000), unix.EPERM},
		{"last of user space", refuse(511), 511},
		{"named", refuse(unix.EACCES), unix.EACCES},
		{"panic", panics, unix.EPERM},
		{"the judge's goroutine ends", func(Held) Verdict { runtime.Goexit(); return Verdict{Allow: true} }, unix.EPERM},
		{"nil pointer", func(h Held) Verdict { var v *Verdict; return *v }, unix.EPERM},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := run(t, 1)
			c := newCaller(t)
			add(t, s.Supervisor, 1, c.listener, test.judge)
			for range 3 { // the worker lives on
				if _, errno := c.call(unix.SYS_GETPPID); errno != test.want {
					t.Errorf("got %v, want %v", errno, test.want)
				}
			}
			s.SetJudge(1, allow)
			if pid, errno := c.call(unix.SYS_GETPPID); errno != 0 || int(pid) != os.Getppid() {
				t.Errorf("after a judge that allows: %d, %v", pid, errno)
			}
			got := s.balanced(t)
			if got.Refused != 3 || got.Allowed != 1 {
				t.Errorf("counters %+v, want 3 refused, 1 allowed", got)
			}
			if panicked := test.name == "panic" || test.name == "nil pointer"; panicked != (got.Panics == 3) {
				t.Errorf("%d panics counted", got.Panics)
			}
		})
	}
}

// An allowed call runs, a refused one does not.
func TestAllowedCallsRun(t *testing.T) {
	s := run(t, 1)
	c := newCaller(t)
	var allowed atomic.Bool
	add(t, s.Supervisor, 1, c.listener, func(Held) Verdict { return Verdict{Allow: allowed.Load()} })
	for _, want := range []bool{false, true} {
		allowed.Store(want)
		dir := filepath.Join(t.TempDir(), "made")
		name, err := unix.BytePtrFromString(dir)
		if err != nil {
			t.Fatal(err)
		}
		at := unix.AT_FDCWD
		_, errno := c.call(unix.SYS_MKDIRAT, uintptr(at), uintptr(unsafe.Pointer(name)), 0o700)
		runtime.KeepAlive(name)
		_, err = os.Stat(dir)
		if made := err == nil; made != want || (errno == 0) != want {
			t.Errorf("allowed %v: mkdirat gave %v, directory there: %v", want, errno, made)
		}
	}
}

// A judge that is set is the judge of the next call.
func TestSetJudge(t *testing.T) {
	s := run(t, 4)
	c, other := newCaller(t), newCaller(t)
	add(t, s.Supervisor, 1, c.listener, nil)
	add(t, s.Supervisor, 1, other.listener, nil)
	var stop atomic.Bool
	done := make(chan struct{})
	other.do <- func() { // calls of the same container fly meanwhile
		defer close(done)
		for !stop.Load() {
			_, _ = held(unix.SYS_GETPPID)
		}
	}
	for i := range 500 {
		want := unix.Errno(1 + i%100)
		s.SetJudge(1, refuse(want))
		if _, errno := c.call(unix.SYS_GETPPID); errno != want {
			t.Fatalf("call %d gave %v, want %v", i, errno, want)
		}
	}
	stop.Store(true)
	<-done
	s.balanced(t)
}
