// SPDX-License-Identifier: Apache-2.0

package filter

import (
	"fmt"

	"golang.org/x/net/bpf"

	"github.com/whittle-sec/whittle/internal/syscalls"
)

// MaxInstructions of one program (BPF_MAXINSNS).
const MaxInstructions = 4096

// Offsets into struct seccomp_data (linux/seccomp.h).
const (
	offNr   = 0
	offArch = 4
	offIP   = 8
	offArgs = 16
	dataLen = 64
)

// Opcodes. Seccomp accepts few more than these.
const (
	opLoad  = 0x20 // BPF_LD|BPF_W|BPF_ABS
	opAnd   = 0x54 // BPF_ALU|BPF_AND|BPF_K
	opRet   = 0x06 // BPF_RET|BPF_K
	opJump  = 0x05 // BPF_JMP|BPF_JA
	opJeq   = 0x15 // BPF_JMP|BPF_JEQ|BPF_K
	opJgt   = 0x25 // BPF_JMP|BPF_JGT|BPF_K
	opJge   = 0x35 // BPF_JMP|BPF_JGE|BPF_K
	opJset  = 0x45 // BPF_JMP|BPF_JSET|BPF_K
	maxJump = 255
)

// Compile makes a seccomp program that decides as the rules do. The architecture is tested first, then the number by a
// balanced tree of ranges; arguments are loaded only for numbers that have a Check. So the path to any other call loads
// the architecture and the number alone, which lets kernels from 5.11 on answer an allowed one from a bitmap.
func Compile(r *Rules) ([]bpf.RawInstruction, error) {
	var b builder
	// The program is built from its end, because jumps only go forward: a target always exists before its jump.
	next := b.ret(r.Foreign)
	groups := r.archs()
	for i := len(groups) - 1; i >= 0; i-- {
		group := groups[i]
		arch, ok := syscalls.AuditArch(group[0])
		if !ok {
			return nil, fmt.Errorf("compile filter: ABI %s has no architecture number", group[0])
		}
		spans, checks := r.spans(group)
		numbers := b.load(offNr, b.tree(spans, checks))
		// The next architecture's code is far away by now.
		next = b.branch(opJeq, arch, numbers, next)
	}
	b.load(offArch, next)
	if n := len(b.rev); n > MaxInstructions {
		return nil, fmt.Errorf("compile filter: %d instructions, the kernel takes %d: constrain fewer argument values",
			n, MaxInstructions)
	}
	return b.program(), nil
}

// at is a place in the program, counted from its end: the instruction rev[at].
type at int

// builder holds the program in reverse order. Each method emits code that ends in jumps to places that exist, and
// returns where that code starts.
type builder struct {
	rev []bpf.RawInstruction
}

func (b *builder) emit(ins bpf.RawInstruction) at {
	b.rev = append(b.rev, ins)
	return at(len(b.rev) - 1)
}

// distance of a jump from the instruction emitted after `extra` more.
func (b *builder) distance(to at, extra int) int { return len(b.rev) + extra - int(to) - 1 }

// ret reuses a return that a conditional jump can reach.
func (b *builder) ret(a Action) at {
	ins := bpf.RawInstruction{Op: opRet, K: uint32(a)}
	// Half of the reach: the jump may come some instructions later.
	for i := len(b.rev) - 1; i >= 0 && len(b.rev)-i <= maxJump/2; i-- {
		if b.rev[i] == ins {
			return at(i)
		}
	}
	return b.emit(ins)
}

// near is a place within reach of a conditional jump that does what the code at `to` does: `to` itself, a copy of its
// return, or a long jump there. Up to spare instructions may follow before the conditional jump.
func (b *builder) near(to at, spare int) at {
	if b.distance(to, spare) <= maxJump {
		return to
	}
	if b.rev[to].Op == opRet {
		return b.ret(Action(b.rev[to].K))
	}
	return b.emit(bpf.RawInstruction{Op: opJump, K: uint32(b.distance(to, 0))})
}

func (b *builder) branch(op uint16, k uint32, yes, no at) at {
	yes = b.near(yes, 1) // 1: the other side may need an instruction too
	no = b.near(no, 0)
	return b.emit(bpf.RawInstruction{
		Op: op, K: k,
		Jt: uint8(b.distance(yes, 0)), Jf: uint8(b.distance(no, 0)),
	})
}

// then makes sure that the instruction emitted next is followed by the code at `to`.
func (b *builder) then(to at) {
	if b.distance(to, 0) != 0 {
		b.emit(bpf.RawInstruction{Op: opJump, K: uint32(b.distance(to, 0))})
	}
}

func (b *builder) load(offset uint32, to at) at {
	b.then(to)
	return b.emit(bpf.RawInstruction{Op: opLoad, K: offset})
}

func (b *builder) mask(mask uint32, to at) at {
	if mask == 0xffffffff {
		return to
	}
	b.then(to)
	return b.emit(bpf.RawInstruction{Op: opAnd, K: mask})
}

// tree tests the number in the accumulator. The spans are contiguous.
func (b *builder) tree(spans []span, checks []Check) at {
	if len(spans) == 1 {
		return b.leaf(spans[0], checks)
	}
	// One number amid a span: an equality test does for two comparisons.
	if len(spans) == 3 && spans[0].leaf == spans[2].leaf && spans[1].first == spans[1].last {
		around := b.leaf(spans[0], checks)
		hole := b.leaf(spans[1], checks)
		return b.branch(opJeq, spans[1].first, hole, around)
	}
	half := len(spans) / 2
	high := b.tree(spans[half:], checks)
	low := b.tree(spans[:half], checks)
	return b.branch(opJge, spans[half].first, high, low)
}

func (b *builder) leaf(s span, checks []Check) at {
	if s.leaf.check < 0 {
		return b.ret(s.leaf.action)
	}
	return b.check(s.leaf.action, checks[s.leaf.check])
}

// program in the kernel's order.
func (b *builder) program() []bpf.RawInstruction {
	prog := make([]bpf.RawInstruction, len(b.rev))
	for i, ins := range b.rev {
		prog[len(prog)-1-i] = ins
	}
	return prog
}
