// SPDX-License-Identifier: Apache-2.0

package elfcalls

import (
	"debug/elf"
	"errors"
	"slices"
	"sort"

	"github.com/whittle-sec/whittle/internal/syscalls"
)

const (
	// maxEdges bounds how many call instructions are kept; a Go program of 50 MB has half as many.
	maxEdges = 1 << 20
	// maxDepth of functions that hand a number on: Go's Syscall calls RawSyscall6, which calls Syscall6.
	maxDepth = 6
	// maxReach is how far behind its beginning a function makes the call that it is there for.
	maxReach = 1 << 10
	maxSlots = 8
	maxStubs = 64 // a linker makes one or two for a function
	// dense: no code calls more often than once in so many bytes, but for the first few. Compiled code has one in 22 at
	// most, with the bytes that only look like a call. Code that is made of them would cost a microsecond a byte.
	dense, fewEdges = 16, 1 << 10
)

// tracer finds who calls a function that makes any call by its number: Go's in the file itself, and the C library's
// syscall(2) through its slot. The number is the constant that a caller loads right before. x86-64 only.
type tracer struct {
	known syscalls.Set
	slots []uint64
	stubs []uint64 // that jump to what a slot says
	edges []edge
	bytes int // of code that edges were looked for in
	full  bool
	lost  int
	found syscalls.Set
}

// edge is a call instruction, with the constants in the registers of the first argument: Go's, and C's. -1 is none.
type edge struct {
	at, to   uint64
	eax, edi int16
}

// collect the call instructions of a window.
func (t *tracer) collect(code []byte, seen int, addr uint64) {
	t.bytes += len(code) - seen
	for at := range code {
		if at+6 <= seen || at+6 > len(code) {
			continue
		}
		switch {
		case code[at] == 0xe8: // call
			to := addr + uint64(at) + 5 + uint64(int64(int32(le.Uint32(code[at+1:]))))
			t.edge(code, at, edge{at: addr + uint64(at), to: to})
		case code[at] == 0xff && (code[at+1] == 0x25 || code[at+1] == 0x15): // jmp, call *slot(%rip)
			slot := addr + uint64(at) + 6 + uint64(int64(int32(le.Uint32(code[at+2:]))))
			if !slices.Contains(t.slots, slot) {
				continue
			}
			if code[at+1] == 0x15 {
				t.number(constant(code, at, false))
				continue
			}
			if len(t.stubs) >= 4*maxStubs {
				t.full = true
				continue
			}
			// The stub may begin with endbr64, and its jump have a bnd prefix.
			here := addr + uint64(at)
			t.stubs = append(t.stubs, here, here-1, here-4, here-5)
		}
	}
}

func (t *tracer) edge(code []byte, at int, e edge) {
	if len(t.edges) >= min(maxEdges, fewEdges+t.bytes/dense) {
		t.full = true
		return
	}
	e.eax, e.edi = constant(code, at, true), constant(code, at, false)
	t.edges = append(t.edges, e)
}

// constant in a register before a call instruction, or -1.
func constant(code []byte, at int, eax bool) int16 {
	before := code[max(0, at-lookBack):at]
	if eax {
		if nr, _, ok := loadedEAX(before); ok && nr < syscalls.MaxNr {
			return int16(nr)
		}
		return -1
	}
	for i := len(before) - 5; i >= 0; i-- {
		if before[i] == 0xbf && (i == 0 || before[i-1]&0xf0 != 0x40) { // mov $imm32, %edi
			if nr := le.Uint32(before[i+1:]); nr < syscalls.MaxNr {
				return int16(nr)
			}
		}
	}
	return -1
}

func (t *tracer) number(nr int16) {
	if nr >= 0 && t.known.Has(uint32(nr)) {
		t.found.Add(uint32(nr))
		return
	}
	t.lost++
}

// trace the callers of the functions that the sites lie in, and of the stubs. lost is in how many places the number is
// not known.
func (t *tracer) trace(sites []uint64) (lost int) {
	if len(t.slots) > 0 && len(t.stubs) == 0 && t.found.Empty() && t.lost == 0 {
		t.lost++ // its address is taken
	}
	sort.Slice(t.edges, func(i, j int) bool { return t.edges[i].to < t.edges[j].to })
	for _, stub := range t.stubs {
		for _, e := range t.callers(stub) {
			t.number(e.edi)
		}
	}
	done := make(map[uint64]bool)
	for range maxDepth {
		var next []uint64
		for _, site := range sites {
			entry, ok := t.entry(site)
			if !ok {
				t.lost++
				continue
			}
			if done[entry] {
				continue
			}
			done[entry] = true
			for _, e := range t.callers(entry) {
				if e.eax >= 0 && t.known.Has(uint32(e.eax)) {
					t.found.Add(uint32(e.eax))
					continue
				}
				next = append(next, e.at)
			}
		}
		if sites = next; len(sites) > maxUnnamed {
			break // who calls it with a number from elsewhere is no wrapper any more
		}
	}
	if t.full {
		t.lost++
	}
	return t.lost + len(sites)
}

// callers of a function.
func (t *tracer) callers(of uint64) []edge {
	from := sort.Search(len(t.edges), func(i int) bool { return t.edges[i].to >= of })
	to := from
	for to < len(t.edges) && t.edges[to].to == of {
		to++
	}
	return t.edges[from:to]
}

// entry of the function that a site lies in: the nearest place before it that is called from anywhere.
func (t *tracer) entry(site uint64) (uint64, bool) {
	i := sort.Search(len(t.edges), func(i int) bool { return t.edges[i].to > site })
	if i == 0 || site-t.edges[i-1].to > maxReach {
		return 0, false
	}
	return t.edges[i-1].to, true
}

// slots that the loader fills with the address of a function, by the index of its symbol.
func (f *image) slots(src *source, d dynamic, symbol uint64) (out []uint64, err error) {
	if f.abi != syscalls.X86_64 {
		return nil, errors.New("their numbers are not looked for on this machine")
	}
	const size = 24 // of Elf64_Rela
	for _, table := range [][2]elf.DynTag{{elf.DT_JMPREL, elf.DT_PLTRELSZ}, {elf.DT_RELA, elf.DT_RELASZ}} {
		at, left := d.tags[table[0]], d.tags[table[1]]/size
		for left > 0 && len(out) < maxSlots {
			n := min(left, chunk/size)
			part, err := f.readAddr(src, at, n*size)
			if err != nil {
				return out, err
			}
			for ; len(part) > 0; part = part[size:] {
				if le.Uint64(part[8:])>>32 == symbol && len(out) < maxSlots {
					out = append(out, le.Uint64(part))
				}
			}
			at, left = at+n*size, left-n
		}
	}
	if len(out) == 0 {
		err = errors.New("no slot for it was found")
	}
	return out, err
}
