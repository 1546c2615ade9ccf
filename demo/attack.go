// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"runtime"

	"github.com/whittle-sec/whittle/internal/syscalls"
)

// attempt is a call that somebody who got into the container would make.
type attempt struct {
	call string
	args [3]uint32
	why  string
}

var attempts = []attempt{
	{"unshare", [3]uint32{0x10000000}, "a user namespace, the door to most kernel bugs"},
	{"keyctl", [3]uint32{0, 0xfffffffd, 1}, "the session's keyring"},
	{"bpf", [3]uint32{0}, "create a BPF map"},
	{"userfaultfd", [3]uint32{1}, "stop the kernel inside a copy"},
	{"io_uring_setup", [3]uint32{1}, "do I/O that no filter sees"},
	{"mount", [3]uint32{}, "change the file system"},
	{"ptrace", [3]uint32{0}, "control another process"},
	{"socket", [3]uint32{17, 3, 0x300}, "a raw packet socket (AF_PACKET)"},
}

// attacker is a program that makes these calls, one after another, and exits: an ELF file of a few hundred bytes, without
// the dozens of calls that any language's start would add.
func attacker(abi syscalls.ABI, attempts []attempt) ([]byte, error) {
	var code bytes.Buffer
	for _, a := range append(attempts, attempt{call: "exit"}) {
		nr, ok := syscalls.Number(abi, a.call)
		if !ok {
			return nil, fmt.Errorf("%s has no call %s", abi, a.call)
		}
		assemble(&code, abi, nr, a.args)
	}
	const base, headers = 0x400000, 64 + 56
	machine := uint16(62)
	if abi == syscalls.ARM64 {
		machine = 183
	}
	var elf bytes.Buffer
	put := func(values ...any) {
		for _, v := range values {
			binary.Write(&elf, binary.LittleEndian, v) // a bytes.Buffer does not fail
		}
	}
	elf.WriteString("\x7fELF\x02\x01\x01")
	put([9]byte{}, uint16(2), machine, uint32(1), uint64(base+headers), uint64(64), uint64(0), uint32(0))
	put(uint16(64), uint16(56), uint16(1), uint16(64), uint16(0), uint16(0))
	size := uint64(headers + code.Len())
	put(uint32(1), uint32(5), uint64(0), uint64(base), uint64(base), size, size, uint64(0x1000))
	elf.Write(code.Bytes())
	return elf.Bytes(), nil
}

// assemble one call with three arguments of 32 bits.
func assemble(code *bytes.Buffer, abi syscalls.ABI, nr uint32, args [3]uint32) {
	word := func(v uint32) { binary.Write(code, binary.LittleEndian, v) }
	if abi == syscalls.ARM64 {
		for reg, v := range map[uint32]uint32{8: nr, 0: args[0], 1: args[1], 2: args[2]} {
			word(0xd2800000 | v&0xffff<<5 | reg)     // movz xREG, #v
			word(0xf2a00000 | v>>16&0xffff<<5 | reg) // movk xREG, #v>>16, lsl 16
		}
		word(0xd4000001) // svc #0
		return
	}
	for i, opcode := range []byte{0xb8, 0xbf, 0xbe, 0xba} { // mov eax, edi, esi, edx
		code.WriteByte(opcode)
		word(append([]uint32{nr}, args[:]...)[i])
	}
	code.Write([]byte{0x4d, 0x31, 0xd2, 0x0f, 0x05}) // xor r10, r10; syscall
}

func native() syscalls.ABI {
	abi, _ := syscalls.Native(runtime.GOARCH)
	return abi
}
