// SPDX-License-Identifier: Apache-2.0

package filter

import (
	"errors"
	"fmt"

	"golang.org/x/net/bpf"
)

// Data is what the kernel shows to a seccomp program (struct seccomp_data).
type Data struct {
	Nr   uint32
	Arch uint32
	IP   uint64
	Args [argCount]uint64
}

// word at a byte offset, in the little-endian layout of every ABI that Whittle knows.
func (d *Data) word(offset uint32) uint32 {
	switch {
	case offset == offNr:
		return d.Nr
	case offset == offArch:
		return d.Arch
	case offset < offArgs:
		return uint32(d.IP >> (8 * (offset - offIP)))
	}
	arg := d.Args[(offset-offArgs)/8]
	return uint32(arg >> (8 * ((offset - offArgs) % 8)))
}

// Trace counts what a run did.
type Trace struct {
	Steps int
	// BeyondArch is true when the run read an argument or the instruction pointer, which costs the bitmap of allowed
	// calls.
	BeyondArch bool
}

// Run interprets a seccomp program on d as the kernel does. It refuses what the kernel refuses to load, as far as the run
// meets it.
func Run(prog []bpf.RawInstruction, d *Data) (Action, error) {
	a, _, err := RunTrace(prog, d)
	return a, err
}

var errRunaway = errors.New("run filter: it ends without a return")

// RunTrace is Run with counters.
func RunTrace(prog []bpf.RawInstruction, d *Data) (Action, Trace, error) {
	var (
		t       Trace
		m       machine
		program = uint64(len(prog))
	)
	// Jumps only go forward, so this ends.
	for pc := uint64(0); pc < program; {
		ins := prog[pc]
		t.Steps++
		if ins.Op == opLoad {
			t.BeyondArch = t.BeyondArch || ins.K >= offIP
		}
		if action, done := m.returns(ins); done {
			return action, t, nil
		}
		skip, err := m.step(ins, d)
		if err != nil {
			return 0, t, fmt.Errorf("run filter: instruction %d: %w", pc, err)
		}
		pc += 1 + skip
	}
	return 0, t, errRunaway
}

// machine is the state of classic BPF.
type machine struct {
	a, x uint32
	mem  [16]uint32
}

func (m *machine) returns(ins bpf.RawInstruction) (Action, bool) {
	switch ins.Op {
	case opRet:
		return Action(ins.K), true
	case 0x16: // BPF_RET|BPF_A
		return Action(m.a), true
	}
	return 0, false
}

// step executes anything but a return and tells how many instructions to skip. The opcodes are those of
// seccomp_check_filter in kernel/seccomp.c.
func (m *machine) step(ins bpf.RawInstruction, d *Data) (skip uint64, err error) {
	switch ins.Op & 0x07 {
	case 0x05:
		return m.jump(ins)
	case 0x04:
		return 0, m.alu(ins)
	}
	switch ins.Op {
	case opLoad:
		if ins.K%4 != 0 || ins.K >= dataLen {
			return 0, fmt.Errorf("load at offset %d", ins.K)
		}
		m.a = d.word(ins.K)
	case 0x80: // BPF_LD|BPF_W|BPF_LEN
		m.a = dataLen
	case 0x81: // BPF_LDX|BPF_W|BPF_LEN
		m.x = dataLen
	case 0x00: // BPF_LD|BPF_IMM
		m.a = ins.K
	case 0x01: // BPF_LDX|BPF_IMM
		m.x = ins.K
	case 0x07: // BPF_MISC|BPF_TAX
		m.x = m.a
	case 0x87: // BPF_MISC|BPF_TXA
		m.a = m.x
	case 0x60, 0x61, 0x02, 0x03: // BPF_LD|BPF_MEM, BPF_LDX|BPF_MEM, BPF_ST, BPF_STX
		return 0, m.memory(ins)
	default:
		return 0, fmt.Errorf("opcode %#x", ins.Op)
	}
	return 0, nil
}

func (m *machine) memory(ins bpf.RawInstruction) error {
	if ins.K >= uint32(len(m.mem)) {
		return fmt.Errorf("memory word %d", ins.K)
	}
	switch cell := &m.mem[ins.K]; ins.Op {
	case 0x60:
		m.a = *cell
	case 0x61:
		m.x = *cell
	case 0x02:
		*cell = m.a
	case 0x03:
		*cell = m.x
	}
	return nil
}

// operand is K or X, by bit 3 of the opcode.
func (m *machine) operand(ins bpf.RawInstruction) uint32 {
	if ins.Op&0x08 != 0 {
		return m.x
	}
	return ins.K
}

func (m *machine) jump(ins bpf.RawInstruction) (skip uint64, err error) {
	if ins.Op == opJump {
		return uint64(ins.K), nil
	}
	var (
		taken bool
		k     = m.operand(ins)
	)
	switch ins.Op &^ 0x08 {
	case opJeq:
		taken = m.a == k
	case opJgt:
		taken = m.a > k
	case opJge:
		taken = m.a >= k
	case opJset:
		taken = m.a&k != 0
	default:
		return 0, fmt.Errorf("opcode %#x", ins.Op)
	}
	if taken {
		return uint64(ins.Jt), nil
	}
	return uint64(ins.Jf), nil
}

func (m *machine) alu(ins bpf.RawInstruction) error {
	k := m.operand(ins)
	switch ins.Op &^ 0x08 {
	case 0x04:
		m.a += k
	case 0x14:
		m.a -= k
	case 0x24:
		m.a *= k
	case 0x34:
		if k == 0 {
			return errors.New("division by zero")
		}
		m.a /= k
	case 0x44:
		m.a |= k
	case opAnd:
		m.a &= k
	case 0x64:
		m.a <<= k & 31
	case 0x74:
		m.a >>= k & 31
	case 0x84:
		m.a = -m.a
	case 0xa4:
		m.a ^= k
	default:
		return fmt.Errorf("opcode %#x", ins.Op)
	}
	return nil
}
