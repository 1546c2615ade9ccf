// SPDX-License-Identifier: Apache-2.0

package inject

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/whittle-sec/whittle/internal/syscalls"
	"golang.org/x/sys/unix"
)

// thread of a process, in the tracer's hands.
type thread struct {
	pid, tid int
	start    uint64 // of the process
	seized   bool
	stopped  bool
	cured    bool // see settle
	sigstop  bool // a SIGSTOP came meanwhile and is still owed to the process
}

// callNumbers are the calls that are made in a tracee.
type callNumbers struct{ mmap, munmap, prctl, seccomp, close uint32 }

func numbersOf(abi syscalls.ABI) (n callNumbers, err error) {
	mmap := "mmap"
	if abi == syscalls.I386 {
		mmap = "mmap2" // its mmap takes a structure
	}
	for _, c := range []struct {
		name string
		to   *uint32
	}{{mmap, &n.mmap}, {"munmap", &n.munmap}, {"prctl", &n.prctl}, {"seccomp", &n.seccomp}, {"close", &n.close}} {
		nr, ok := syscalls.Number(abi, c.name)
		if !ok {
			return n, fmt.Errorf("%s has no %s", abi, c.name)
		}
		*c.to = nr
	}
	return n, nil
}

// call makes a system call in a stopped thread, at a call instruction of its own. The thread ends in the stop at the
// call's end. PTRACE_SYSCALL is used and not PTRACE_SINGLESTEP, which needs half the stops: the trap of a single step is a
// signal, and a tracer that is killed before it has taken that signal leaves it to the process, which dies of it.
func (th *thread) call(base registers, abi syscalls.ABI, site uint64, nr uint32, args ...uint64) (int64, error) {
	var six [6]uint64
	copy(six[:], args)
	regs := aim(base, abi, site, nr, six)
	if err := setRegisters(th.tid, &regs); err != nil {
		return 0, gone(err)
	}
	stops := 0
	for range 64 { // stop signals in a row; a hostile neighbour can send many
		if err := resume(th.tid, unix.PTRACE_SYSCALL, 0); err != nil {
			return 0, gone(err)
		}
		ws, _, err := wait(th.tid, 0)
		if err != nil {
			return 0, err
		}
		switch sig := ws.StopSignal(); {
		case eventStop(ws): // the group stops; we go on
		case sig == callStop:
			stops++
		case sig == unix.SIGSTOP:
			th.sigstop = true
		default: // every signal that can be blocked is: the instruction has faulted
			return 0, fmt.Errorf("a call in thread %d ended with signal %d", th.tid, int(sig))
		}
		if stops < 2 {
			continue
		}
		if err := getRegisters(th.tid, &regs); err != nil {
			return 0, gone(err)
		}
		if programCounter(&regs) != site+insnLen {
			return 0, fmt.Errorf("thread %d made a call elsewhere than it was sent", th.tid)
		}
		return outcome(&regs, abi), nil
	}
	return 0, fmt.Errorf("thread %d is stopped by signals over and over", th.tid)
}

// giveBack the registers and the mask. The last stop must be inside the kernel's get_signal, because only what follows it
// restarts an interrupted call; at the end of a call it is not, and -ERESTARTSYS would reach the program.
func (th *thread) giveBack(regs *registers, mask uint64) error {
	if err := interrupt(th.tid); err != nil {
		return gone(err)
	}
	for range 64 {
		if err := resume(th.tid, unix.PTRACE_CONT, 0); err != nil {
			return gone(err)
		}
		ws, _, err := wait(th.tid, 0)
		if err != nil {
			return err
		}
		if eventStop(ws) {
			return gone(errors.Join(setRegisters(th.tid, regs), setSignalMask(th.tid, mask)))
		}
		if ws.StopSignal() == unix.SIGSTOP {
			th.sigstop = true
		}
		if err := interrupt(th.tid); err != nil {
			return gone(err)
		}
	}
	return fmt.Errorf("thread %d does not come to rest", th.tid)
}

// settle a thread that has just stopped: a call that the kernel would end with EINTR is made to restart, as no program
// expects that without a signal handler having run. It is done at once and by one SETREGS, so that a tracer that is killed
// later leaves no EINTR behind. Timeouts start anew.
func (th *thread) settle(mem memory) {
	th.stopped = true
	var regs registers
	if !curesEINTR || getRegisters(th.tid, &regs) != nil || !interrupted(&regs) {
		return
	}
	nr, ok := blockedIn(&regs)
	mask, err := signalMask(th.tid)
	if !ok || err != nil || !endsWithEINTR(abiOf(&regs), nr) || signalWaits(th.tid, mask) {
		return
	}
	var insn [insnLen]byte
	if !mem.read(insn[:], programCounter(&regs)-insnLen) || !pastCall(insn) {
		return
	}
	if abiOf(&regs) == native && !bytes.Equal(insn[:], callInsn(native)) {
		return // a 32-bit call of a 64-bit program: its number means another call
	}
	reissue(&regs)
	th.cured = setRegisters(th.tid, &regs) == nil
}

// unsettle the registers that the thread is given back, if a signal has come meanwhile: then EINTR is what the program waits
// for, to look at what its handler has noted.
func (th *thread) unsettle(regs *registers, mask uint64) bool {
	if !th.cured || !signalWaits(th.tid, mask) {
		return false
	}
	endWithEINTR(regs)
	th.cured = false
	return true
}

// unsettleAlone is unsettle for a thread that was only stopped.
func (th *thread) unsettleAlone() {
	if !th.cured || !th.stopped {
		return
	}
	var regs registers
	mask, err := signalMask(th.tid)
	if err == nil && getRegisters(th.tid, &regs) == nil && th.unsettle(&regs, mask) {
		_ = setRegisters(th.tid, &regs) // killed meanwhile
	}
}

// release a thread that is stopped as it was found.
func (th *thread) release() {
	if !th.seized || !th.stopped {
		return // one that never stopped is let go by our end
	}
	th.unsettleAlone()
	_ = detach(th.tid) // it may have been killed
	if th.sigstop {
		_ = unix.Tgkill(th.pid, th.tid, unix.SIGSTOP)
	}
	th.seized, th.stopped = false, false
}

// neverRestarted are calls that the kernel ends with EINTR when a tracer or the freezer interrupts them: see signal(7).
// Sockets do where a timeout is set on them. When they end so they have done nothing yet, and can be issued again; close
// is not among them.
var neverRestarted = []string{
	"epoll_wait", "epoll_pwait", "epoll_pwait2", "rt_sigtimedwait", "rt_sigtimedwait_time64", "semop", "semtimedop",
	"semtimedop_time64", "ipc", "io_getevents", "io_pgetevents", "io_pgetevents_time64", "io_uring_enter", "socketcall",
	"read", "readv", "recvfrom", "recvmsg", "recvmmsg", "recvmmsg_time64", "accept", "accept4", "connect",
	"write", "writev", "sendto", "sendmsg", "sendmmsg",
}

var eintrCalls = func() map[syscalls.ABI]syscalls.Set {
	sets := map[syscalls.ABI]syscalls.Set{}
	for _, abi := range []syscalls.ABI{syscalls.X86_64, syscalls.I386} {
		var s syscalls.Set
		for _, name := range neverRestarted {
			if nr, ok := syscalls.Number(abi, name); ok {
				s.Add(nr)
			}
		}
		sets[abi] = s
	}
	return sets
}()

func endsWithEINTR(abi syscalls.ABI, nr uint32) bool {
	s := eintrCalls[abi]
	return s.Has(nr &^ syscalls.X32Flag)
}
