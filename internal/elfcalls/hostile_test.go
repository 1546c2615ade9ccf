// SPDX-License-Identifier: Apache-2.0

package elfcalls

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/whittle-sec/whittle/internal/syscalls"
)

// craft an x86-64 file: its segments, with what lies at their offsets.
type craft struct {
	segments []segment
	at       map[uint64][]byte
	count    int // of segments, where the header lies
}

func (c craft) bytes() []byte {
	b := make([]byte, 64+56*len(c.segments))
	copy(b, elf.ELFMAG)
	b[4], b[5], b[6] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), 1
	binary.LittleEndian.PutUint16(b[16:], uint16(elf.ET_DYN))
	binary.LittleEndian.PutUint16(b[18:], uint16(elf.EM_X86_64))
	binary.LittleEndian.PutUint64(b[32:], 64)
	binary.LittleEndian.PutUint16(b[54:], 56)
	count := len(c.segments)
	if c.count != 0 {
		count = c.count
	}
	binary.LittleEndian.PutUint16(b[56:], uint16(count))
	for i, s := range c.segments {
		p := b[64+56*i:]
		binary.LittleEndian.PutUint32(p, s.kind)
		binary.LittleEndian.PutUint32(p[4:], s.flags)
		for at, v := range map[int]uint64{8: s.off, 16: s.vaddr, 32: s.fsize, 40: s.fsize} {
			binary.LittleEndian.PutUint64(p[at:], v)
		}
	}
	for off, content := range c.at {
		if need := int(off) + len(content); need > len(b) {
			b = append(b, make([]byte, need-len(b))...)
		}
		copy(b[off:], content)
	}
	return b
}

// words in little endian.
func words(v ...uint64) (b []byte) {
	for _, w := range v {
		b = binary.LittleEndian.AppendUint64(b, w)
	}
	return b
}

const (
	load    = uint32(elf.PT_LOAD)
	text    = uint32(elf.PF_X | elf.PF_R)
	section = uint32(elf.PT_DYNAMIC)
)

// library with the given dynamic section at 0x400, in one segment that maps the file's first 4 KiB at 0.
func library(dynamic []byte, at map[uint64][]byte) []byte {
	if at == nil {
		at = make(map[uint64][]byte)
	}
	at[0x400] = dynamic
	at[0xff8] = make([]byte, 8)
	return craft{segments: []segment{
		{kind: load, flags: text, fsize: 0x1000},
		{kind: section, off: 0x400, vaddr: 0x400, fsize: uint64(len(dynamic))},
	}, at: at}.bytes()
}

func hostile() map[string][]byte {
	const max = ^uint64(0)
	tables := func(more ...uint64) []byte {
		return words(append([]uint64{uint64(elf.DT_STRTAB), 0x600, uint64(elf.DT_STRSZ), 0x20, uint64(elf.DT_SYMTAB), 0x700}, more...)...)
	}
	hash32 := func(v ...uint32) (b []byte) {
		for _, w := range v {
			b = binary.LittleEndian.AppendUint32(b, w)
		}
		return b
	}
	gnu, sysv := uint64(elf.DT_GNU_HASH), uint64(elf.DT_HASH)
	many := make([]segment, maxSegments)
	for i := range many {
		many[i] = segment{kind: load, flags: text, fsize: 0x3000}
	}
	return map[string][]byte{
		"empty":                    nil,
		"magic only":               []byte(elf.ELFMAG),
		"no segments":              craft{}.bytes(),
		"more segments than bytes": craft{count: 200}.bytes(),
		"65535 segments":           craft{count: 65535}.bytes(),
		"overlapping segments":     craft{segments: many, at: map[uint64][]byte{0x4000: {1}}}.bytes(),
		"segment past the end":     craft{segments: []segment{{kind: load, flags: text, off: 1 << 40, fsize: 10}}}.bytes(),
		"segment offset overflows": craft{segments: []segment{{kind: load, flags: text, off: max - 1, fsize: max}}}.bytes(),
		"segment size overflows":   craft{segments: []segment{{kind: load, flags: text, off: 8, fsize: max}}}.bytes(),
		"address overflows": craft{segments: []segment{{kind: load, off: max - 8, vaddr: 0, fsize: max}, {kind: section, off: 0x400, fsize: 64}},
			at: map[uint64][]byte{0x400: append(tables(), make([]byte, 64)...)}}.bytes(),
		"dynamic past the end":      craft{segments: []segment{{kind: section, off: 1 << 50, fsize: 64}}}.bytes(),
		"note that overflows":       craft{segments: []segment{{kind: uint32(elf.PT_NOTE), off: 0x200, fsize: 24}}, at: map[uint64][]byte{0x200: hash32(0xffffffff, 0xffffffff, 3, 0, 0, 0)}}.bytes(),
		"strings of 16 EB":          library(words(uint64(elf.DT_STRTAB), 0x600, uint64(elf.DT_STRSZ), max), nil),
		"symbols of 4 G by DT_HASH": library(tables(sysv, 0x800), map[uint64][]byte{0x800: hash32(1, 0xffffffff)}),
		"buckets of 4 G":            library(tables(gnu, 0x800), map[uint64][]byte{0x800: hash32(0xffffffff, 1, 1, 0)}),
		"bloom of 4 G":              library(tables(gnu, 0x800), map[uint64][]byte{0x800: hash32(1, 1, 0xffffffff, 0)}),
		"chain without an end":      library(tables(gnu, 0x800), map[uint64][]byte{0x800: hash32(1, 1, 1, 0, 0, 0, 1)}),
		"bucket of symbol 4 G":      library(tables(gnu, 0x800), map[uint64][]byte{0x800: hash32(1, 1, 1, 0, 0, 0, 0xffffffff)}),
		"tables at the top":         library(words(uint64(elf.DT_STRTAB), max, uint64(elf.DT_STRSZ), 9, uint64(elf.DT_SYMTAB), max, gnu, max), nil),
		"no count":                  library(words(uint64(elf.DT_STRTAB), 0x600, uint64(elf.DT_STRSZ), 9, uint64(elf.DT_SYMTAB), 0x700), nil),
		"name without an end":       library(tables(uint64(elf.DT_SONAME), 0x10), map[uint64][]byte{0x600: bytes.Repeat([]byte("a"), 0xa00)}),
	}
}

// Nothing of these is more than a note or an error, and nothing costs more than its size.
func TestHostileFiles(t *testing.T) {
	for name, content := range hostile() {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			c, err := Read(bytes.NewReader(content), int64(len(content)), DefaultLimits())
			runtime.ReadMemStats(&after)
			if used := after.TotalAlloc - before.TotalAlloc; used > 8<<20 {
				t.Errorf("%d bytes were allocated for a file of %d", used, len(content))
			}
			if len(c.Imports) > 0 || !c.Sites.Empty() {
				t.Errorf("it has calls: %+v", c)
			}
			if whole := name == "no segments" || name == "overlapping segments" || strings.HasPrefix(name, "note"); err == nil && (c.Partial == "") != whole {
				t.Errorf("partial is %q", c.Partial)
			}
		})
	}
}

// Code that is made of calls and jumps, and nothing else, costs no more than other code.
func TestDenseCode(t *testing.T) {
	const size, slot = 1 << 20, 0x10
	calls := bytes.Repeat([]byte{0xe8}, size)
	jumps := make([]byte, 0, size)
	for len(jumps)+6 <= size {
		to := int32(slot - len(jumps) - 6)
		jumps = binary.LittleEndian.AppendUint32(append(jumps, 0xff, 0x25), uint32(to))
	}
	for name, code := range map[string][]byte{"calls": calls, "jumps": jumps} {
		tr := tracer{slots: []uint64{slot}}
		tr.collect(code, 0, 0)
		if !tr.full || len(tr.edges) > fewEdges+size/dense || len(tr.stubs) > 4*maxStubs {
			t.Errorf("%s: %d edges and %d stubs are kept, and full is %v", name, len(tr.edges), len(tr.stubs), tr.full)
		}
		if lost := tr.trace(nil); lost == 0 {
			t.Errorf("%s: nothing is said of what was not looked at", name)
		}
	}
	const symbol = 7
	table := make([]byte, 0, 24*2000)
	for i := range uint64(2000) {
		table = append(table, words(i, symbol<<32, 0)...)
	}
	f := image{abi: syscalls.X86_64, wide: true, segments: []segment{{kind: load, fsize: uint64(len(table))}}}
	d := dynamic{tags: map[elf.DynTag]uint64{elf.DT_JMPREL: 0, elf.DT_PLTRELSZ: uint64(len(table))}}
	slots, err := f.slots(&source{r: bytes.NewReader(table), size: uint64(len(table)), left: 1 << 20}, d, symbol)
	if err != nil || len(slots) != maxSlots {
		t.Errorf("%d slots, %v", len(slots), err)
	}
}

// A file of 4 GB that is nearly all hole.
func TestSparse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sparse")
	const size = 4 << 30
	content := craft{segments: []segment{
		{kind: load, flags: text, fsize: size}, {kind: load, flags: text, fsize: size}, {kind: section, off: 1 << 20, fsize: size - (1 << 20)},
	}}.bytes()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	counted := &counter{r: f}
	l := DefaultLimits()
	l.Bytes = 8 << 20
	c, err := Read(counted, size, l)
	if err != nil || !c.Cut || c.Partial == "" {
		t.Errorf("got %+v, %v", c, err)
	}
	if counted.n > l.Bytes {
		t.Errorf("%d bytes were read, the limit is %d", counted.n, l.Bytes)
	}
}

type counter struct {
	r io.ReaderAt
	n int64
}

func (c *counter) ReadAt(b []byte, off int64) (int, error) {
	n, err := c.r.ReadAt(b, off)
	c.n += int64(n)
	return n, err
}

// A file that becomes shorter while it is read.
func TestShrinks(t *testing.T) {
	content := hostile()["overlapping segments"]
	if c, err := Read(bytes.NewReader(content[:0x2000]), int64(len(content)), DefaultLimits()); err == nil && c.Partial == "" {
		t.Errorf("nothing was said: %+v", c)
	}
}

// A number across the border of two windows is found, once.
func TestSitesAcrossWindows(t *testing.T) {
	site := []byte{0xb8, 0x10, 0x01, 0, 0, 0x0f, 0x05, 0xc3} // unshare
	for shift := range len(site) + 2 {
		code := make([]byte, 3*window)
		for _, edge := range []int{window - lookBack, 2 * (window - lookBack)} {
			copy(code[edge-shift:], site)
		}
		file := craft{segments: []segment{{kind: load, flags: text, off: 0x1000, fsize: uint64(len(code))}}, at: map[uint64][]byte{0x1000: code}}.bytes()
		c, err := Read(bytes.NewReader(file), int64(len(file)), DefaultLimits())
		if err != nil || !c.Sites.Has(272) || c.Sites.Len() != 1 || c.Partial != "" {
			t.Errorf("%d bytes before the border: %q, %q, %v", shift, c.Sites.Names(c.ABI), c.Partial, err)
		}
	}
}

func TestLoadedEAX(t *testing.T) {
	for _, test := range []struct {
		name string
		code string
		nr   uint32
		ok   bool
	}{
		{"mov", "\xb8\x10\x01\x00\x00", 272, true},
		{"mov rax", "\x48\xc7\xc0\x10\x01\x00\x00", 272, true},
		{"xor", "\x31\xc0", 0, true},
		{"push pop", "\x6a\x39\x58", 57, true},
		{"the last counts", "\xb8\x10\x01\x00\x00\x31\xc0", 0, true},
		{"r8 is another register", "\x41\xb8\x10\x01\x00\x00", 0, false},
		{"r8 after", "\xb8\x10\x01\x00\x00\x45\x31\xc0", 272, true},
		{"no number of a call", "\xb8\x10\x01\x01\x00", 0, false},
		{"cut", "\xb8\x10", 0, false},
		{"nothing", "", 0, false},
	} {
		if nr, _, ok := loadedEAX([]byte(test.code)); nr != test.nr || ok != test.ok {
			t.Errorf("%s: got %d, %v, want %d, %v", test.name, nr, ok, test.nr, test.ok)
		}
	}
}

func TestBitmask(t *testing.T) {
	for _, test := range []struct {
		word, nr uint32
		ok       bool
	}{
		{0xb27e13e8, 124, true}, // orr x8, xzr, #0x7c
		{0x321e13e8, 124, true}, // orr w8, wzr, #0x7c
		{0xb24003e8, 1, true},   // orr x8, xzr, #1
		{0xb200f3e8, 0, false},  // orr x8, xzr, #0x5555555555555555
		{0x320083e8, 0, false},  // orr w8, wzr, #0x10001
		{0xd2800108, 8, true},   // mov x8, #8
		{0x52800fe8, 127, true}, // mov w8, #127
		{0xd503201f, 0, false},  // nop
	} {
		if nr, ok := loadedX8(binary.LittleEndian.AppendUint32(nil, test.word)); ok != test.ok || (ok && nr != test.nr) {
			t.Errorf("%#x loads %d, %v, want %d, %v", test.word, nr, ok, test.nr, test.ok)
		}
	}
}

func FuzzRead(f *testing.F) {
	for _, content := range hostile() {
		f.Add(content)
	}
	if sh, err := os.ReadFile("/bin/sh"); err == nil {
		f.Add(sh[:min(len(sh), 64<<10)])
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		l := Limits{Bytes: 1 << 20, Symbols: 4096, Strings: 1 << 16}
		counted := &counter{r: bytes.NewReader(content)}
		c, err := Read(counted, int64(len(content)), l)
		if counted.n > l.Bytes {
			t.Errorf("%d bytes were read, the limit is %d", counted.n, l.Bytes)
		}
		if err != nil && c.ABI != 0 {
			t.Errorf("an error and calls: %v, %+v", err, c)
		}
		if strings.ContainsAny(c.Soname+c.Partial, "\n\x00\x1b") {
			t.Errorf("not printable: %q, %q", c.Soname, c.Partial)
		}
	})
}
