// SPDX-License-Identifier: Apache-2.0

package elfcalls

import (
	"bytes"

	"github.com/whittle-sec/whittle/internal/syscalls"
)

// near is how many bytes may lie between the load of a number and a system call whatever comes after it: three loads of
// arguments. Of numbers below rare that is not believed: 0 and 1 are loaded everywhere.
const near, rare = 16, 16

// scanX86 looks for "syscall" (0f 05), on i386 for "int $0x80" (cd 80). These bytes may also be a part of another
// instruction; a number that is loaded right before them hardly ever is.
func (s *scanner) scanX86(code []byte, seen int, addr uint64) {
	first, second := byte(0x0f), byte(0x05)
	if s.abi == syscalls.I386 {
		first, second = 0xcd, 0x80
	}
	last := 0 // the end of the site before: what is loaded before it is gone with it
	for at := 0; ; at++ {
		next := bytes.IndexByte(code[at:], first)
		if next < 0 {
			return
		}
		at += next
		if at+1 >= len(code) {
			return
		}
		if code[at+1] != second {
			continue
		}
		// Whole in what was seen: counted then.
		if at+2 > seen {
			nr, gap, ok := loadedEAX(code[max(last, at-lookBack):at])
			if (ok && (gap == 0 || (gap <= near && nr >= rare))) || plausible(code[at+2:]) {
				s.found(nr&^syscalls.X32Flag, ok, addr+uint64(at))
			}
		}
		last = at + 2
	}
}

// loadedEAX finds the constant that was last loaded into eax, and how many bytes behind its load the code goes on.
func loadedEAX(code []byte) (nr uint32, gap int, ok bool) {
	for i := len(code) - 2; i >= 0; i-- {
		if i > 0 && code[i-1]&0xf0 == 0x40 && code[i-1]&0x05 != 0 {
			continue // REX.R or REX.B: the instruction is about r8 to r15
		}
		if nr, size := loadEAX(code[i:]); size > 0 {
			return nr, len(code) - i - size, true
		}
	}
	return 0, 0, false
}

// loadEAX decodes an instruction that loads a constant into eax; size is 0 for any other.
func loadEAX(code []byte) (nr uint32, size int) {
	switch {
	case code[0] == 0xb8 && len(code) >= 5: // mov $imm32, %eax
		nr, size = le.Uint32(code[1:]), 5
	case code[0] == 0xc7 && code[1] == 0xc0 && len(code) >= 6: // mov $imm32, %rax
		nr, size = le.Uint32(code[2:]), 6
	case (code[0] == 0x31 || code[0] == 0x33) && code[1] == 0xc0: // xor %eax, %eax
		return 0, 2
	case code[0] == 0x6a && len(code) >= 3 && code[2] == 0x58 && code[1] < 0x80: // push $imm8; pop %rax
		return uint32(code[1]), 3
	}
	if nr&^syscalls.X32Flag >= syscalls.MaxNr {
		return 0, 0
	}
	return nr, size
}

// plausible reports whether bytes that look like a system call instruction are one: what follows the instruction in real
// code is a comparison or a test of its result (cmp $-4095, %rax; neg; test), a move of it, a return, or, where the call
// does not return, a trap or a jump.
func plausible(after []byte) bool {
	for _, next := range []string{"\x48\x3d", "\x3d\x00\xf0", "\x48\x85\xc0", "\x85\xc0", "\x48\x89", "\x89\xc2", "\x89\xc3", "\xc3",
		"\x48\xf7\xd8", "\x89\x44\x24", "\xcc", "\xeb", "\x0f\x0b", "\xf4"} {
		if bytes.HasPrefix(after, []byte(next)) {
			return true
		}
	}
	return false
}
