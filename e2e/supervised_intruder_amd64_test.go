// SPDX-License-Identifier: Apache-2.0

package e2e

import "golang.org/x/sys/unix"

// What a tracer does with the registers of a thread that waits in a call: its program counter is behind the instruction.

func waitsInCall(regs *unix.PtraceRegs) bool { return int64(regs.Orig_rax) >= 0 }

// toCall is the registers with which the thread makes another call, with one argument that is not 0.
func toCall(regs unix.PtraceRegs, nr uint32, first uint64) unix.PtraceRegs {
	regs.Rip -= 2
	regs.Orig_rax, regs.Rax = ^uint64(0), uint64(nr)
	regs.Rdi, regs.Rsi, regs.Rdx, regs.R10, regs.R8, regs.R9 = first, 0, 0, 0, 0, 0
	return regs
}

func resultOf(regs *unix.PtraceRegs) int64 { return int64(regs.Rax) }
