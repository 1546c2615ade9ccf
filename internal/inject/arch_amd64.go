// SPDX-License-Identifier: Apache-2.0

package inject

import (
	"fmt"
	"unsafe"

	"github.com/whittle-sec/whittle/internal/syscalls"
	"golang.org/x/sys/unix"
)

// registers of a stopped thread, in the 64-bit view for 32-bit threads too.
type registers = unix.PtraceRegs

const (
	native     = syscalls.X86_64
	compat     = syscalls.I386
	compatCS   = 0x23 // the kernel's selector for 32-bit code (__USER32_CS)
	insnLen    = 2
	noCall     = ^uint64(0) // orig_rax of a thread that is in no system call, and of one that shall not restart it
	curesEINTR = true
)

// getRegisters by PTRACE_GETREGS: unix.PtraceGetRegs asks for a register set, whose layout follows the tracee, and a 32-bit
// tracee then gives 68 bytes of other registers.
func getRegisters(tid int, r *registers) error {
	if err := ptrace(unix.PTRACE_GETREGS, tid, 0, uintptr(unsafe.Pointer(r))); err != nil {
		return fmt.Errorf("read registers of %d: %w", tid, err)
	}
	return nil
}

func setRegisters(tid int, r *registers) error {
	if err := ptrace(unix.PTRACE_SETREGS, tid, 0, uintptr(unsafe.Pointer(r))); err != nil {
		return fmt.Errorf("write registers of %d: %w", tid, err)
	}
	return nil
}

// abiOf the code that the thread runs.
func abiOf(r *registers) syscalls.ABI {
	if r.Cs == compatCS {
		return compat
	}
	return native
}

// callInsn is the instruction that makes a system call of the ABI: syscall, or int 0x80.
func callInsn(abi syscalls.ABI) []byte {
	if abi == compat {
		return []byte{0xcd, 0x80}
	}
	return []byte{0x0f, 0x05}
}

// pastCall says whether the two bytes before the instruction pointer make a system call of any kind.
func pastCall(b [insnLen]byte) bool {
	return b == [insnLen]byte{0x0f, 0x05} || b == [insnLen]byte{0xcd, 0x80} || b == [insnLen]byte{0x0f, 0x34}
}

// aim the registers at a call instruction. Every other register keeps its value.
func aim(r registers, abi syscalls.ABI, site uint64, nr uint32, args [6]uint64) registers {
	r.Rip, r.Rax, r.Orig_rax = site, uint64(nr), noCall
	if abi == compat {
		r.Rbx, r.Rcx, r.Rdx, r.Rsi, r.Rdi, r.Rbp = args[0], args[1], args[2], args[3], args[4], args[5]
		return r
	}
	r.Rdi, r.Rsi, r.Rdx, r.R10, r.R8, r.R9 = args[0], args[1], args[2], args[3], args[4], args[5]
	return r
}

// outcome of the call that the registers show finished.
func outcome(r *registers, abi syscalls.ABI) int64 {
	if abi != compat {
		return int64(r.Rax)
	}
	// Addresses above 2 GiB look negative in 32 bits; only the last page of them are errors.
	if e := int32(r.Rax); e < 0 && e >= -4095 {
		return int64(e)
	}
	return int64(uint32(r.Rax))
}

func programCounter(r *registers) uint64 { return r.Rip }

func setProgramCounter(r *registers, pc uint64) { r.Rip = pc }

// blockedIn is the number of the call that the stop interrupted.
func blockedIn(r *registers) (nr uint32, ok bool) {
	if int64(r.Orig_rax) < 0 {
		return 0, false
	}
	return uint32(r.Orig_rax), true
}

// lastCall that the thread has made: the kernel leaves its number.
func lastCall(r *registers) uint32 { return uint32(r.Orig_rax) }

// interrupted says whether the call has ended with EINTR, which the program would see. Calls that the kernel restarts
// itself end with another number.
func interrupted(r *registers) bool { return outcome(r, abiOf(r)) == -int64(unix.EINTR) }

// reissue the call that was interrupted, as the kernel does.
func reissue(r *registers) {
	r.Rax, r.Orig_rax = r.Orig_rax, noCall
	r.Rip -= insnLen
}

// endWithEINTR takes reissue back.
func endWithEINTR(r *registers) {
	r.Orig_rax, r.Rax = r.Rax, ^uint64(unix.EINTR)+1
	r.Rip += insnLen
}
