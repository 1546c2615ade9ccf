// SPDX-License-Identifier: Apache-2.0

package intruder

import (
	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/syscalls"
)

const nativeABI = syscalls.X86_64

// What a tracer does with the registers of a thread that waits in a call: its program counter is behind the instruction.

var (
	trap    = []byte{0x0f, 0x05} // syscall
	int0x80 = []byte{0xcd, 0x80}
	// behind is how the C library goes on after a call: cmp $-4096 (or -4095), %rax.
	behind = []byte{0x48, 0x3d}
)

func instruction(abi syscalls.ABI) ([]byte, bool) {
	switch abi {
	case syscalls.X86_64, syscalls.X32:
		return trap, true
	case syscalls.I386:
		return int0x80, true
	}
	return nil, false
}

func stackPointer(regs *unix.PtraceRegs) uint64 { return regs.Rsp }

func waitsInCall(regs *unix.PtraceRegs) bool { return int64(regs.Orig_rax) >= 0 }

// toCall is the registers with which the thread makes another call at an instruction.
func toCall(regs unix.PtraceRegs, at uint64, call Call) unix.PtraceRegs {
	regs.Rip = at
	regs.Orig_rax, regs.Rax = ^uint64(0), uint64(call.Nr)
	a := call.Args
	switch call.ABI {
	case syscalls.I386:
		regs.Rbx, regs.Rcx, regs.Rdx, regs.Rsi, regs.Rdi, regs.Rbp = a[0], a[1], a[2], a[3], a[4], a[5]
	case syscalls.X32:
		regs.Rax |= syscalls.X32Flag
		fallthrough
	default:
		regs.Rdi, regs.Rsi, regs.Rdx, regs.R10, regs.R8, regs.R9 = a[0], a[1], a[2], a[3], a[4], a[5]
	}
	return regs
}

func resultOf(regs *unix.PtraceRegs, abi syscalls.ABI) int64 {
	if abi == syscalls.I386 {
		return int64(int32(regs.Rax))
	}
	return int64(regs.Rax)
}
