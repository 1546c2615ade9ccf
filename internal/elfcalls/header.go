// SPDX-License-Identifier: Apache-2.0

package elfcalls

import (
	"debug/elf"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/whittle-sec/whittle/internal/syscalls"
)

const (
	// maxSegments is far above what linkers make (about 14); the kernel takes 64 KiB of program headers.
	maxSegments = 256
	// maxNote bounds what is read of a note segment in search of the build id.
	maxNote = 64 << 10
	// maxBuildID: linkers make 8 to 32 bytes.
	maxBuildID = 64
)

var le = binary.LittleEndian

// image is the part of a file that tells how it is mapped. Section headers are not needed and not read: strip takes them.
type image struct {
	abi      syscalls.ABI
	wide     bool // ELFCLASS64
	interp   bool
	segments []segment
}

// segment is a program header.
type segment struct {
	kind, flags       uint32
	off, vaddr, fsize uint64
}

// readHeader of the file and of its segments. debug/elf is not used: it is not made for hostile files, and wants the
// section headers.
func readHeader(src *source) (*image, error) {
	head, err := src.read(0, min(64, src.size))
	if err != nil {
		return nil, fmt.Errorf("read the header: %w", err)
	}
	if len(head) < 52 || string(head[:4]) != elf.ELFMAG || head[5] != byte(elf.ELFDATA2LSB) {
		return nil, errors.New("read the header: no ELF file of a little-endian machine")
	}
	f := &image{wide: head[4] == byte(elf.ELFCLASS64)}
	f.abi = abiOf(elf.Machine(le.Uint16(head[18:])), elf.Class(head[4]))
	if f.abi == 0 {
		return nil, fmt.Errorf("read the header: machine %d is not known", le.Uint16(head[18:]))
	}
	off, entry, count := uint64(le.Uint32(head[28:])), le.Uint16(head[42:]), le.Uint16(head[44:])
	least := uint16(32)
	if f.wide {
		if len(head) < 64 {
			return nil, errors.New("read the header: it is cut")
		}
		off, entry, count, least = le.Uint64(head[32:]), le.Uint16(head[54:]), le.Uint16(head[56:]), 56
	}
	if entry != least || count > maxSegments {
		return nil, fmt.Errorf("read the header: %d segments of %d bytes", count, entry)
	}
	table, err := src.read(off, uint64(entry)*uint64(count))
	if err != nil {
		return nil, fmt.Errorf("read the program headers: %w", err)
	}
	for ; len(table) > 0; table = table[entry:] {
		s := f.segment(table)
		f.interp = f.interp || s.kind == uint32(elf.PT_INTERP)
		f.segments = append(f.segments, s)
	}
	return f, nil
}

func abiOf(m elf.Machine, c elf.Class) syscalls.ABI {
	switch {
	case m == elf.EM_X86_64 && c == elf.ELFCLASS64:
		return syscalls.X86_64
	case m == elf.EM_X86_64 && c == elf.ELFCLASS32:
		return syscalls.X32
	case m == elf.EM_386 && c == elf.ELFCLASS32:
		return syscalls.I386
	case m == elf.EM_AARCH64 && c == elf.ELFCLASS64:
		return syscalls.ARM64
	}
	return 0
}

func (f *image) segment(b []byte) segment {
	if f.wide {
		return segment{
			kind: le.Uint32(b), flags: le.Uint32(b[4:]),
			off: le.Uint64(b[8:]), vaddr: le.Uint64(b[16:]), fsize: le.Uint64(b[32:]),
		}
	}
	return segment{
		kind: le.Uint32(b), flags: le.Uint32(b[24:]),
		off: uint64(le.Uint32(b[4:])), vaddr: uint64(le.Uint32(b[8:])), fsize: uint64(le.Uint32(b[16:])),
	}
}

// offset in the file of an address, and how many bytes the segment has from there. Of overlapping segments the first is
// taken; the kernel takes the last, so a file that has them is misread and no more.
func (f *image) offset(addr uint64) (off, rest uint64, err error) {
	for _, s := range f.segments {
		if s.kind != uint32(elf.PT_LOAD) || addr < s.vaddr || addr-s.vaddr >= s.fsize {
			continue
		}
		in := addr - s.vaddr
		if s.off > ^uint64(0)-in {
			return 0, 0, errBeyond
		}
		return s.off + in, s.fsize - in, nil
	}
	return 0, 0, fmt.Errorf("address %#x is in no segment", addr)
}

// readAddr reads n bytes at an address.
func (f *image) readAddr(src *source, addr, n uint64) ([]byte, error) {
	off, rest, err := f.offset(addr)
	if err != nil {
		return nil, err
	}
	if n > rest {
		return nil, errBeyond
	}
	return src.read(off, n)
}

// buildID in hexadecimal, "" when there is none that can be read.
func (f *image) buildID(src *source) string {
	for _, s := range f.segments {
		if s.kind != uint32(elf.PT_NOTE) || s.fsize > maxNote {
			continue
		}
		notes, err := src.read(s.off, s.fsize)
		if err != nil {
			continue
		}
		if id := findBuildID(notes); id != "" {
			return id
		}
	}
	return ""
}

func findBuildID(notes []byte) string {
	const gnuBuildID = 3 // NT_GNU_BUILD_ID of elf.h
	for len(notes) >= 12 {
		// The sizes are at most 32 bits, so their sums do not overflow 64.
		nameSize, descSize := uint64(le.Uint32(notes)), uint64(le.Uint32(notes[4:]))
		kind := le.Uint32(notes[8:])
		desc := 12 + (nameSize+3)&^3
		end := desc + (descSize+3)&^3
		if desc+descSize > uint64(len(notes)) {
			return ""
		}
		if kind == gnuBuildID && nameSize == 4 && string(notes[12:16]) == "GNU\x00" && descSize <= maxBuildID {
			return hex.EncodeToString(notes[desc : desc+descSize])
		}
		notes = notes[min(end, uint64(len(notes))):]
	}
	return ""
}
