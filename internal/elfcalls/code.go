// SPDX-License-Identifier: Apache-2.0

package elfcalls

import (
	"debug/elf"
	"fmt"

	"github.com/whittle-sec/whittle/internal/syscalls"
)

const (
	// window is how much of the code is held at a time.
	window = 1 << 20
	// lookBack is how far before a system call instruction its number is looked for, in bytes. Compilers and Go's
	// assembler load it within a few instructions; further away another value may have been loaded on another path.
	lookBack = 48
)

// scanner finds system call instructions in code.
type scanner struct {
	abi     syscalls.ABI
	known   syscalls.Set
	sites   syscalls.Set
	unnamed []uint64 // addresses of the sites without a number before them, of the first maxUnnamed
}

// maxUnnamed: a program has a few; where there are more, the code is not what it seems.
const maxUnnamed = 32

// readCode of the segments that are executable. slots are where syscall(2) is found once it is loaded.
func (c *Calls) readCode(src *source, f *image, slots []uint64) error {
	s := scanner{abi: f.abi, known: syscalls.Known(f.abi)}
	buf := make([]byte, 0, lookBack+min(window, src.size))
	err := eachWindow(src, f, buf, func(code []byte, seen int, addr uint64) { s.scan(code, seen, addr) })
	c.Sites = s.sites
	if err != nil || (len(s.unnamed) == 0 && len(slots) == 0) {
		return err
	}
	if f.abi != syscalls.X86_64 || len(s.unnamed) == maxUnnamed {
		return fmt.Errorf("%d system call instructions whose number is not next to them", len(s.unnamed))
	}
	t := tracer{known: s.known, slots: slots}
	if err := eachWindow(src, f, buf, t.collect); err != nil {
		return err
	}
	lost := t.trace(s.unnamed)
	c.Sites = c.Sites.Union(t.found)
	if lost > 0 {
		return fmt.Errorf("%d places where a system call is made whose number is not known", lost)
	}
	return nil
}

// eachWindow gives the executable code window by window; each begins with the end of the one before, and the first seen
// bytes were seen then. addr is where the window's first byte is mapped.
func eachWindow(src *source, f *image, buf []byte, each func(code []byte, seen int, addr uint64)) error {
	for _, seg := range f.segments {
		if seg.kind != uint32(elf.PT_LOAD) || seg.flags&uint32(elf.PF_X) == 0 {
			continue
		}
		if err := seg.windows(src, buf, each); err != nil {
			return err // the file is cut, or hostile
		}
	}
	return nil
}

func (seg segment) windows(src *source, buf []byte, each func(code []byte, seen int, addr uint64)) error {
	if seg.off > src.size || seg.fsize > src.size-seg.off {
		return errBeyond
	}
	kept := 0
	for off, end := seg.off, seg.off+seg.fsize; off < end; {
		n := min(end-off, window-lookBack)
		if n > src.left {
			return errBudget
		}
		src.left -= n
		buf = buf[:kept+int(n)]
		if err := src.fill(buf[kept:], off); err != nil {
			return err
		}
		each(buf, kept, seg.vaddr+(off-seg.off)-uint64(kept))
		keep := min(len(buf), lookBack)
		copy(buf, buf[len(buf)-keep:])
		kept = keep &^ 3 // arm64's instructions stay aligned; n and the window are multiples of 4 but at the end
		off += n
	}
	return nil
}

// scan code of which the first seen bytes were scanned before, with the window before this one.
func (s *scanner) scan(code []byte, seen int, addr uint64) {
	if s.abi == syscalls.ARM64 {
		s.scanARM64(code, seen, addr)
		return
	}
	s.scanX86(code, seen, addr)
}

func (s *scanner) found(nr uint32, ok bool, addr uint64) {
	if ok && nr < syscalls.MaxNr && s.known.Has(nr) {
		s.sites.Add(nr)
		return
	}
	if len(s.unnamed) < maxUnnamed {
		s.unnamed = append(s.unnamed, addr)
	}
}
