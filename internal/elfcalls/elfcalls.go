// SPDX-License-Identifier: Apache-2.0

// Package elfcalls reads from an ELF file which system calls it needs: by the functions it imports, and by the system
// call instructions in its code. The file is hostile: nothing in it is believed that could cost more than Limits.
package elfcalls

import (
	"io"

	"github.com/whittle-sec/whittle/internal/syscalls"
)

// Limits of what is read of one file.
type Limits struct {
	Bytes   int64 // of the file in all
	Symbols int
	Strings int64
}

// DefaultLimits suit every real program.
func DefaultLimits() Limits { return Limits{Bytes: 256 << 20, Symbols: 1 << 20, Strings: 64 << 20} }

// Calls that a file needs.
type Calls struct {
	ABI      syscalls.ABI
	BuildID  string // hexadecimal
	Soname   string
	CLibrary bool                // it is a C library or a loader: its calls say nothing about who uses them
	Imports  map[uint32][]string // by call: the imported functions that make it
	Sites    syscalls.Set        // calls whose number is loaded right before a system call instruction
	Static   bool                // no dynamic section: all its calls are its own
	Partial  string              // why something was not read; "" when everything was
}

// Read the file. size is its size.
func Read(r io.ReaderAt, size int64, l Limits) (Calls, error) { return Calls{}, io.ErrUnexpectedEOF }
