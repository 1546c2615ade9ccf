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
	unnamed int // sites without a number before them
}

// readCode of the segments that are executable.
func (c *Calls) readCode(src *source, f *image) error {
	s := scanner{abi: f.abi, known: syscalls.Known(f.abi)}
	buf := make([]byte, 0, lookBack+min(window, src.size))
	var err error
	for _, seg := range f.segments {
		if seg.kind != uint32(elf.PT_LOAD) || seg.flags&uint32(elf.PF_X) == 0 {
			continue
		}
		if err = s.segment(src, seg, buf); err != nil {
			break // the file is cut, or hostile
		}
	}
	c.Sites = s.sites
	if err == nil && s.unnamed > 0 {
		err = fmt.Errorf("%d system call instructions whose number is not next to them", s.unnamed)
	}
	return err
}

// segment is scanned window by window; each begins with the end of the one before.
func (s *scanner) segment(src *source, seg segment, buf []byte) error {
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
		s.scan(buf, kept)
		keep := min(len(buf), lookBack)
		copy(buf, buf[len(buf)-keep:])
		kept = keep &^ 3 // arm64's instructions stay aligned; n and the window are multiples of 4 but at the end
		off += n
	}
	return nil
}

// scan code of which the first seen bytes were scanned before, with the window before this one.
func (s *scanner) scan(code []byte, seen int) {
	if s.abi == syscalls.ARM64 {
		s.scanARM64(code, seen)
		return
	}
	s.scanX86(code, seen)
}

func (s *scanner) found(nr uint32, ok bool) {
	if ok && nr < syscalls.MaxNr && s.known.Has(nr) {
		s.sites.Add(nr)
		return
	}
	s.unnamed++
}
