// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// callIn has the first thread of a process make a call, as somebody would who has taken it over: the call comes from the
// process itself, at an instruction of its own. What it was doing goes on afterwards. text, if any, is put below the
// thread's stack, and its address is the call's first argument.
func callIn(pid int, nr uint32, args [6]uint64, text string) (result int64, err error) {
	runtime.LockOSThread() // ptrace knows threads
	defer runtime.UnlockOSThread()
	for range 500 {
		result, err = tryCall(pid, nr, args, text)
		if !errors.Is(err, errBusy) {
			return result, err
		}
		time.Sleep(2 * time.Millisecond)
	}
	return 0, err
}

// errBusy is for a thread that was not stopped in a system call: there is no syscall instruction before where it goes on.
var errBusy = errors.New("it is computing")

func tryCall(pid int, nr uint32, args [6]uint64, text string) (result int64, err error) {
	if err := unix.PtraceAttach(pid); err != nil {
		return 0, fmt.Errorf("attach to process %d: %w", pid, err)
	}
	pending := 0
	defer func() { err = errors.Join(err, detach(pid, pending)) }()
	if err := stopped(pid, unix.SIGSTOP, &pending); err != nil {
		return 0, err
	}
	var was syscall.PtraceRegs
	if err := syscall.PtraceGetRegs(pid, &was); err != nil {
		return 0, fmt.Errorf("read registers: %w", err)
	}
	var insn [2]byte
	if _, err := unix.PtracePeekText(pid, uintptr(was.Rip-2), insn[:]); err != nil {
		return 0, fmt.Errorf("read code: %w", err)
	}
	if int64(was.Orig_rax) < 0 || insn != [2]byte{0x0f, 0x05} {
		return 0, errBusy
	}
	if text != "" {
		args[0] = (was.Rsp - 2048) &^ 15
		if _, err := unix.PtracePokeData(pid, uintptr(args[0]), append([]byte(text), 0)); err != nil {
			return 0, fmt.Errorf("write below the stack: %w", err)
		}
	}
	regs := was
	regs.Rip, regs.Rax, regs.Orig_rax = was.Rip-2, uint64(nr), ^uint64(0)
	regs.Rdi, regs.Rsi, regs.Rdx, regs.R10, regs.R8, regs.R9 = args[0], args[1], args[2], args[3], args[4], args[5]
	if err := syscall.PtraceSetRegs(pid, &regs); err != nil {
		return 0, fmt.Errorf("write registers: %w", err)
	}
	if err := unix.PtraceSingleStep(pid); err != nil {
		return 0, fmt.Errorf("make the call: %w", err)
	}
	if err := stopped(pid, unix.SIGTRAP, &pending); err != nil {
		return 0, err
	}
	if err := syscall.PtraceGetRegs(pid, &regs); err != nil {
		return 0, fmt.Errorf("read the result: %w", err)
	}
	if err := syscall.PtraceSetRegs(pid, &was); err != nil {
		return 0, fmt.Errorf("put the registers back: %w", err)
	}
	return int64(regs.Rax), nil
}

// stopped waits for a stop by a signal. Another one that comes first is kept for the process.
func stopped(pid int, want unix.Signal, pending *int) error {
	for {
		var s unix.WaitStatus
		if _, err := unix.Wait4(pid, &s, unix.WALL, nil); err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for process %d: %w", pid, err)
		}
		switch {
		case s.Exited(), s.Signaled():
			return fmt.Errorf("process %d ended", pid)
		case s.Stopped() && s.StopSignal() == want:
			return nil
		case s.Stopped():
			*pending = int(s.StopSignal())
			resume := unix.PtraceCont
			if want == unix.SIGTRAP {
				resume = func(pid, _ int) error { return unix.PtraceSingleStep(pid) }
			}
			if err := resume(pid, 0); err != nil {
				return fmt.Errorf("continue process %d: %w", pid, err)
			}
		}
	}
}

// detach and deliver a signal that came meanwhile.
func detach(pid, pending int) error {
	_, _, errno := unix.RawSyscall6(unix.SYS_PTRACE, unix.PTRACE_DETACH, uintptr(pid), 0, uintptr(pending), 0, 0)
	if errno != 0 && errno != unix.ESRCH {
		return fmt.Errorf("let process %d go: %w", pid, errno)
	}
	return nil
}
