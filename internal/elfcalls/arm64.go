// SPDX-License-Identifier: Apache-2.0

package elfcalls

// scanARM64 looks for "svc #0" with a "mov w8, #imm" or "mov x8, #imm" before it.
func (s *scanner) scanARM64(code []byte, seen int) {
	const svc = 0xd4000001
	for at := seen &^ 3; at+4 <= len(code); at += 4 {
		if le.Uint32(code[at:]) != svc {
			continue
		}
		s.found(loadedX8(code[max(0, at-lookBack):at]))
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
	}
	return 0, false
}
