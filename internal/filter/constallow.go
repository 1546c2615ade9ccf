// SPDX-License-Identifier: Apache-2.0

package filter

import "golang.org/x/net/bpf"

// ConstAllow reports whether kernels from 5.11 on find, while they load the program, that it allows every call of this
// architecture and number: they then answer such a call from a bitmap and never run the program. It knows the
// instructions that seccomp_is_const_allow in kernel/seccomp.c knows, and gives up where that does.
func ConstAllow(prog []bpf.RawInstruction, arch, nr uint32) bool {
	var a uint32
	for pc, n := uint64(0), uint64(len(prog)); pc < n; pc++ {
		ins := prog[pc]
		switch ins.Op {
		case opLoad:
			switch ins.K {
			case offNr:
				a = nr
			case offArch:
				a = arch
			default:
				return false
			}
		case opRet:
			return Action(ins.K) == Allow
		case opJump:
			pc += uint64(ins.K)
		case opJeq, opJge, opJgt, opJset:
			m := machine{a: a}
			skip, err := m.jump(ins)
			if err != nil {
				return false
			}
			pc += skip
		case opAnd:
			a &= ins.K
		default:
			return false
		}
	}
	return false
}
