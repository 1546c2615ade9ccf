// SPDX-License-Identifier: Apache-2.0

// Package elfcalls reads from an ELF file which system calls it needs: by the functions it imports, and by the system
// call instructions in its code. The file is hostile: nothing in it is believed that could cost more than Limits. It
// opens no file, and does not judge what a call is needed for.
package elfcalls

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/whittle-sec/whittle/internal/syscalls"
)

// Limits of what is read of one file.
type Limits struct {
	Bytes   int64 // of the file in all
	Symbols int
	Strings int64
}

// DefaultLimits suit every real program.
func DefaultLimits() Limits { return Limits{Bytes: 256 << 20, Symbols: 1 << 20, Strings: 16 << 20} }

// Calls that a file needs.
type Calls struct {
	ABI     syscalls.ABI
	BuildID string // hexadecimal
	Soname  string // printable
	// CLibrary: it calls itself a part of a C library or its loader. Its calls say nothing about who uses them, and do not
	// count for anybody. So a file that lies about its name only loses by it.
	CLibrary bool
	Imports  map[uint32][]string // by call: the imported functions that make it; the names are from our table
	Sites    syscalls.Set        // calls whose number is loaded right before a system call instruction
	Static   bool                // it needs no library and no loader: all its calls are its own
	Partial  string              // why something was not read; "" when everything was
	Cut      bool                // the limit of bytes is among the reasons
}

// Read the file. size is its size. What can be read of a damaged file is returned, with Partial; an error says that
// it is no program of an ABI that Whittle knows.
func Read(r io.ReaderAt, size int64, l Limits) (Calls, error) {
	src := &source{r: r, size: uint64(max(size, 0)), left: uint64(max(l.Bytes, 0))}
	f, err := readHeader(src)
	if err != nil {
		return Calls{}, err
	}
	c := Calls{ABI: f.abi, BuildID: f.buildID(src)}
	var notes []string
	note := func(what string, err error) {
		if err != nil {
			notes = append(notes, fmt.Sprintf("%s: %v", what, err))
			c.Cut = c.Cut || errors.Is(err, errBudget)
		}
	}
	dyn, err := f.dynamic(src)
	note("dynamic section", err)
	c.Static = !f.interp && dyn.needed == 0 && err == nil
	var slots []uint64
	if len(dyn.tags) > 0 {
		indirect, err := c.readImports(src, f, dyn, l)
		note("imports", err)
		if indirect != 0 {
			slots, err = f.slots(src, dyn, indirect)
			note("calls of syscall", err)
		}
	}
	// Who is a C library is not asked for its calls.
	if !c.CLibrary {
		note("code", c.readCode(src, f, slots))
	}
	c.Partial = strings.Join(notes, "; ")
	return c, nil
}
