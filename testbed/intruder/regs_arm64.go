// SPDX-License-Identifier: Apache-2.0

package intruder

import (
	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/syscalls"
)

const nativeABI = syscalls.ARM64

// What a tracer does with the registers of a thread that waits in a call: its program counter is behind the instruction.

var (
	trap   = []byte{0x01, 0x00, 0x00, 0xd4} // svc #0
	behind []byte
)

func instruction(abi syscalls.ABI) ([]byte, bool) { return trap, abi == nativeABI }

func stackPointer(regs *unix.PtraceRegs) uint64 { return regs.Sp }

// waitsInCall cannot be told from these registers here.
func waitsInCall(*unix.PtraceRegs) bool { return true }

// toCall is the registers with which the thread makes another call at an instruction.
func toCall(regs unix.PtraceRegs, at uint64, call Call) unix.PtraceRegs {
	regs.Pc = at
	regs.Regs[8] = uint64(call.Nr)
	copy(regs.Regs[:6], call.Args[:])
	return regs
}

func resultOf(regs *unix.PtraceRegs, _ syscalls.ABI) int64 { return int64(regs.Regs[0]) }
