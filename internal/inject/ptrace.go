// SPDX-License-Identifier: Apache-2.0

package inject

import (
	"errors"
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

var (
	// errGone: the thread has exited. That is no failure.
	errGone = errors.New("the thread is gone")
	// errStuck: the thread does not stop, because it waits for something that no signal interrupts.
	errStuck = errors.New("the thread does not stop")
)

const (
	traceOptions = unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_SUSPEND_SECCOMP
	callStop     = unix.SIGTRAP | 0x80
	maxFilters   = 1024 // of a chain; the kernel's own limit is 32,768 instructions with 4 for each filter
)

// ptrace without the Go runtime's scheduler: most requests take less than a microsecond, and a thread stands still.
func ptrace(request, tid int, addr, data uintptr) error {
	if _, _, errno := unix.RawSyscall6(unix.SYS_PTRACE, uintptr(request), uintptr(tid), addr, data, 0, 0); errno != 0 {
		return errno
	}
	return nil
}

// seize a thread. Its filters are suspended while it is ours, where the kernel can (CONFIG_CHECKPOINT_RESTORE, and a tracer
// that is under no filter): they may refuse the calls that we make in it.
func seize(tid int) error {
	err := ptrace(unix.PTRACE_SEIZE, tid, 0, traceOptions)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPERM) {
		if ptrace(unix.PTRACE_SEIZE, tid, 0, unix.PTRACE_O_TRACESYSGOOD) == nil {
			return nil
		}
	}
	if errors.Is(err, unix.ESRCH) {
		return errGone
	}
	return err
}

func interrupt(tid int) error { return ptrace(unix.PTRACE_INTERRUPT, tid, 0, 0) }

func detach(tid int) error { return ptrace(unix.PTRACE_DETACH, tid, 0, 0) }

func resume(tid, how, sig int) error { return ptrace(how, tid, 0, uintptr(sig)) }

func signalMask(tid int) (mask uint64, err error) {
	if err := ptrace(unix.PTRACE_GETSIGMASK, tid, 8, uintptr(unsafe.Pointer(&mask))); err != nil {
		return 0, fmt.Errorf("read the signal mask: %w", err)
	}
	return mask, nil
}

func setSignalMask(tid int, mask uint64) error {
	const setsigmask = 0x420b // PTRACE_SETSIGMASK
	if err := ptrace(setsigmask, tid, 8, uintptr(unsafe.Pointer(&mask))); err != nil {
		return fmt.Errorf("set the signal mask: %w", err)
	}
	return nil
}

// wait for the next stop of a tracee. ok is false when none has come (with WNOHANG). It is a raw call too, so that the Go
// runtime gives this thread's place to nobody while it waits a few microseconds.
func wait(tid, options int) (ws unix.WaitStatus, ok bool, err error) {
	for {
		got, _, errno := unix.RawSyscall6(unix.SYS_WAIT4, uintptr(tid), uintptr(unsafe.Pointer(&ws)),
			uintptr(unix.WALL|options), 0, 0, 0)
		switch {
		case errno == unix.EINTR:
			continue
		case errno == unix.ECHILD:
			return 0, false, errGone
		case errno != 0:
			return 0, false, fmt.Errorf("wait for %d: %w", tid, errno)
		case got == 0:
			return 0, false, nil
		case ws.Exited() || ws.Signaled():
			return 0, false, errGone
		}
		return ws, true, nil
	}
}

// eventStop is a stop by PTRACE_INTERRUPT or of the whole group.
func eventStop(ws unix.WaitStatus) bool {
	return ws.Stopped() && uint32(ws)>>16 == unix.PTRACE_EVENT_STOP
}

// awaitStop of a tracee that was interrupted, inside the kernel's get_signal. It polls: a thread that waits for its vfork
// child may take for ever. It sleeps instead of yielding, because a real-time thread that yields lets no other run.
func awaitStop(tid int, patience time.Duration) error {
	deadline := time.Now().Add(patience)
	pause := 20 * time.Microsecond
	for {
		ws, ok, err := wait(tid, unix.WNOHANG)
		switch {
		case err != nil:
			return err
		case ok && eventStop(ws):
			return nil
		case ok:
			// A signal was being delivered; the stop for it has used up the interrupt.
			if err := interrupt(tid); err != nil {
				return gone(err)
			}
			if err := resume(tid, unix.PTRACE_CONT, int(ws.StopSignal())); err != nil {
				return gone(err)
			}
			continue
		case time.Now().After(deadline):
			return errStuck
		}
		nap(pause)
		pause = min(pause+pause/4, time.Millisecond)
	}
}

// nap without the Go runtime's timers, which wake late.
func nap(d time.Duration) {
	ts := unix.NsecToTimespec(int64(d))
	unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&ts)), 0, 0) // waking early is fine
}

// gone turns "no such process", which is how ptrace says that a tracee was killed, into errGone.
func gone(err error) error {
	if errors.Is(err, unix.ESRCH) {
		return errGone
	}
	return err
}

// signalWaits says whether a signal that is not in mask waits for a stopped thread: then EINTR is its due.
func signalWaits(tid int, mask uint64) bool {
	type peekArgs struct {
		off   uint64
		flags uint32
		nr    int32
	}
	var infos [16][128]byte
	for _, flags := range []uint32{0, unix.PTRACE_PEEKSIGINFO_SHARED} {
		args := peekArgs{flags: flags, nr: int32(len(infos))}
		n, _, errno := unix.RawSyscall6(unix.SYS_PTRACE, unix.PTRACE_PEEKSIGINFO, uintptr(tid),
			uintptr(unsafe.Pointer(&args)), uintptr(unsafe.Pointer(&infos)), 0, 0)
		if errno != 0 || int(n) == len(infos) {
			return true // cannot tell: let the program see what the kernel gave it
		}
		for _, info := range infos[:n] {
			if sig := info[0]; sig == 0 || sig > 64 || mask&(1<<(sig-1)) == 0 {
				return true
			}
		}
	}
	return false
}
