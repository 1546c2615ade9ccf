// SPDX-License-Identifier: Apache-2.0

package e2e

import "golang.org/x/sys/unix"

// What a tracer does with the registers of a thread that waits in a call: its program counter is behind the instruction.

// waitsInCall cannot be told from these registers here.
func waitsInCall(*unix.PtraceRegs) bool { return true }

// toCall is the registers with which the thread makes another call, with one argument that is not 0.
func toCall(regs unix.PtraceRegs, nr uint32, first uint64) unix.PtraceRegs {
	regs.Pc -= 4
	regs.Regs[8] = uint64(nr)
	regs.Regs[0] = first
	for i := 1; i < 6; i++ {
		regs.Regs[i] = 0
	}
	return regs
}

func resultOf(regs *unix.PtraceRegs) int64 { return int64(regs.Regs[0]) }
