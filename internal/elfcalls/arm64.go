// SPDX-License-Identifier: Apache-2.0

package elfcalls

import (
	"math/bits"

	"github.com/whittle-sec/whittle/internal/syscalls"
)

// scanARM64 looks for "svc #0" with a "mov w8, #imm" or "mov x8, #imm" before it.
func (s *scanner) scanARM64(code []byte, seen int, addr uint64) {
	const svc = 0xd4000001
	for at := seen &^ 3; at+4 <= len(code); at += 4 {
		if le.Uint32(code[at:]) != svc {
			continue
		}
		nr, ok := loadedX8(code[max(0, at-lookBack):at])
		s.found(nr, ok, addr+uint64(at))
	}
}

func loadedX8(code []byte) (uint32, bool) {
	for at := len(code) - 4; at >= 0; at -= 4 {
		word := le.Uint32(code[at:])
		if word == 0xd4000001 {
			break
		}
		if word&0x7fe0001f == 0x52800008 { // movz w8 or x8, #imm16
			return word >> 5 & 0xffff, true
		}
		if word&0x7f8003ff == 0x320003e8 { // orr w8, wzr, #imm, or x8: Go's assembler loads 124 so
			return bitmask(word>>22&1, word>>16&0x3f, word>>10&0x3f)
		}
	}
	return 0, false
}

// bitmask decodes the immediate of a logical instruction (DecodeBitMasks of the Arm manual), if it is small: a run of ones,
// rotated within an element. One that repeats in a register is no number of a call.
func bitmask(n, rotate, ones uint32) (uint32, bool) {
	size := uint32(1) << (bits.Len32(n<<6|^ones&0x3f) - 1)
	if size < 32 || ones&(size-1) == size-1 {
		return 0, false
	}
	run := uint64(1)<<(ones&(size-1)+1) - 1
	rotate &= size - 1
	value := run>>rotate | run<<(size-rotate)
	if size == 32 {
		value &= 1<<32 - 1
	}
	return uint32(value), value < syscalls.MaxNr
}
