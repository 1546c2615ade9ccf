// SPDX-License-Identifier: Apache-2.0

package elfcalls

import (
	"debug/elf"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/whittle-sec/whittle/internal/syscalls"
)

// Every call in the table is one of an ABI that Whittle knows: a wrong name would silently fall out.
func TestTableNamesCalls(t *testing.T) {
	for _, row := range beyond {
		if strings.TrimSpace(row.functions) == "" || strings.TrimSpace(row.calls) == "" {
			t.Errorf("an empty row: %+v", row)
		}
		for call := range strings.FieldsSeq(row.calls) {
			if !slices.ContainsFunc(syscalls.ABIs[:], func(a syscalls.ABI) bool { _, ok := syscalls.Number(a, call); return ok }) {
				t.Errorf("%s: no ABI has a call %s", row.functions, call)
			}
		}
	}
}

func TestFind(t *testing.T) {
	for _, test := range []struct {
		abi  syscalls.ABI
		name string
		want string // calls, "" for none
	}{
		{syscalls.X86_64, "mount", "mount"},
		{syscalls.X86_64, "open64", "open openat"},
		{syscalls.ARM64, "open", "openat"},
		{syscalls.X86_64, "__open64_2", "open openat"},
		{syscalls.X86_64, "__read_chk", "read"},
		{syscalls.X86_64, "__fxstat64", "fstat newfstatat statx"},
		{syscalls.X86_64, "pread64", "pread64"},
		{syscalls.X86_64, "getpgrp", "getpgid getpgrp"},
		{syscalls.I386, "__clock_gettime64", "clock_gettime64"},
		{syscalls.I386, "__clock_nanosleep_time64", "clock_nanosleep_time64"},
		{syscalls.I386, "listen", "listen socketcall"},
		{syscalls.X86_64, "sleep", "clock_nanosleep nanosleep"},
		{syscalls.X86_64, "strlen", ""},
		{syscalls.X86_64, "", ""},
		{syscalls.X86_64, "___", ""},
		{syscalls.X86_64, "_chk", ""},
	} {
		w, ok := wrappersOf(test.abi).find([]byte(test.name))
		var got []string
		for _, nr := range w.calls {
			got = append(got, syscalls.Name(test.abi, nr))
		}
		slices.Sort(got)
		if strings.Join(got, " ") != test.want || ok != (test.want != "") {
			t.Errorf("%s on %s makes %q, want %q", test.name, test.abi, got, test.want)
		}
	}
}

// libc is this machine's C library.
func libc(t *testing.T) string {
	t.Helper()
	for _, pattern := range []string{"/lib/*-linux-gnu/libc.so.6", "/usr/lib/*-linux-gnu/libc.so.6", "/lib64/libc.so.6", "/lib/ld-musl-*.so.1"} {
		if found, _ := filepath.Glob(pattern); len(found) > 0 {
			return found[0]
		}
	}
	t.Fatal("this machine has no C library that the test knows")
	return ""
}

// A function of the C library that makes a call itself has it in the table.
func TestTableAgainstLibc(t *testing.T) {
	path := libc(t)
	file, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	abi := abiOf(file.Machine, file.Class)
	symbols, err := file.DynamicSymbols()
	if err != nil {
		t.Fatal(err)
	}
	checked := 0
	for _, symbol := range symbols {
		if symbol.Section == elf.SHN_UNDEF || elf.ST_TYPE(symbol.Info) != elf.STT_FUNC || symbol.Size == 0 || symbol.Size > 1<<20 {
			continue
		}
		code := make([]byte, symbol.Size)
		if err := readVirtual(file, code, symbol.Value); err != nil {
			t.Fatalf("%s: %v", symbol.Name, err)
		}
		s := scanner{abi: abi, known: syscalls.Known(abi)}
		s.scan(code, 0, 0)
		if s.sites.Empty() {
			continue
		}
		var has syscalls.Set
		w, _ := wrappersOf(abi).find([]byte(symbol.Name))
		for _, nr := range w.calls {
			has.Add(nr)
		}
		for nr := range s.sites.All() {
			if syscalls.Equivalents(syscalls.Call{ABI: abi, Nr: nr}).Intersect(has).Empty() {
				t.Errorf("%s makes %s, and the table does not know", symbol.Name, syscalls.Name(abi, nr))
			}
		}
		checked++
	}
	if checked < 200 {
		t.Errorf("only %d functions of %s were found to make calls", checked, path)
	}
}

func readVirtual(file *elf.File, b []byte, addr uint64) error {
	for _, p := range file.Progs {
		if p.Type == elf.PT_LOAD && addr >= p.Vaddr && addr-p.Vaddr < p.Filesz {
			_, err := p.ReadAt(b, int64(addr-p.Vaddr))
			return err
		}
	}
	return io.ErrUnexpectedEOF
}
