// SPDX-License-Identifier: Apache-2.0

package inject

import (
	"fmt"

	"github.com/whittle-sec/whittle/internal/syscalls"
	"golang.org/x/sys/unix"
)

// registers of a stopped thread.
type registers = unix.PtraceRegs

const (
	native  = syscalls.ARM64
	compat  = syscalls.ABI(0) // 32-bit ARM is not known
	insnLen = 4
	// The first argument and the result share a register here, and the kernel shows no tracer the argument: a call that
	// ended with EINTR cannot be issued again.
	curesEINTR = false
)

func getRegisters(tid int, r *registers) error {
	if err := unix.PtraceGetRegs(tid, r); err != nil {
		return fmt.Errorf("read registers of %d: %w", tid, err)
	}
	return nil
}

func setRegisters(tid int, r *registers) error {
	if err := unix.PtraceSetRegs(tid, r); err != nil {
		return fmt.Errorf("write registers of %d: %w", tid, err)
	}
	return nil
}

func abiOf(r *registers) syscalls.ABI {
	const aarch32 = 1 << 4 // of pstate
	if r.Pstate&aarch32 != 0 {
		return compat
	}
	return native
}

// callInsn is svc #0.
func callInsn(syscalls.ABI) []byte { return []byte{0x01, 0x00, 0x00, 0xd4} }

func pastCall(b [insnLen]byte) bool { return b == [insnLen]byte{0x01, 0x00, 0x00, 0xd4} }

func aim(r registers, _ syscalls.ABI, site uint64, nr uint32, args [6]uint64) registers {
	r.Pc, r.Regs[8] = site, uint64(nr)
	copy(r.Regs[:6], args[:])
	return r
}

func outcome(r *registers, _ syscalls.ABI) int64 { return int64(r.Regs[0]) }

func programCounter(r *registers) uint64 { return r.Pc }

func setProgramCounter(r *registers, pc uint64) { r.Pc = pc }

// blockedIn is not to be known: the kernel has moved the program counter back before a tracer sees the stop.
func blockedIn(*registers) (nr uint32, ok bool) { return 0, false }

// lastCall that the thread has made: its number stays in x8.
func lastCall(r *registers) uint32 { return uint32(r.Regs[8]) }

func interrupted(*registers) bool { return false }

func reissue(*registers) {}

func endWithEINTR(*registers) {}
