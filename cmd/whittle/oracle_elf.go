// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"github.com/whittle-sec/whittle/internal/oracle"
)

const (
	elfBudget  = 48 << 20 // bytes read of one file; debug/elf reads whole sections
	maxNeeds   = 500
	rustScan   = 16 << 20
	libcScan   = 8 << 20
	maxComment = 64 << 10
)

var (
	errNotELF    = errors.New("it is no ELF file")
	errELFBudget = errors.New("reading it costs too much")
)

// budgeted is a file of which only so much is read: sizes in it are somebody's claims.
type budgeted struct {
	r    io.ReaderAt
	left int64
}

func (b *budgeted) ReadAt(p []byte, off int64) (int, error) {
	if b.left -= int64(len(p)); b.left < 0 {
		return 0, errELFBudget
	}
	return b.r.ReadAt(p, off)
}

// elfFacts of a program. debug/elf does not promise to withstand hostile files, so what it panics about is an error.
func elfFacts(r io.ReaderAt, size int64, f *oracle.ImageFacts) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", errNotELF, p)
		}
	}()
	file, err := elf.NewFile(&budgeted{io.NewSectionReader(r, 0, size), elfBudget})
	if err != nil {
		return fmt.Errorf("%w: %w", errNotELF, err)
	}
	if file.Type != elf.ET_EXEC && file.Type != elf.ET_DYN {
		return fmt.Errorf("%w that could be executed: %v", errNotELF, file.Type)
	}
	f.Static = true
	for _, p := range file.Progs {
		if p.Type == elf.PT_INTERP {
			text, _ := io.ReadAll(io.LimitReader(p.Open(), 4096))
			f.Interpreter, _, _ = strings.Cut(string(text), "\x00")
			f.Static = false
		}
	}
	// A file whose dynamic section cannot be read needs nothing that we know of.
	f.Needs, _ = file.ImportedLibraries()
	f.Needs = f.Needs[:min(len(f.Needs), maxNeeds)]
	f.Go = file.Section(".go.buildinfo") != nil || file.Section(".note.go.buildid") != nil
	f.Rust = !f.Go && (sectionHas(file, ".comment", "rustc", maxComment) || sectionHas(file, ".rodata", "/rustc/", rustScan))
	if strings.Contains(f.Interpreter, "ld-musl") {
		f.Libc = "musl"
	}
	return nil
}

// sectionHas a text near its beginning. Chunks overlap by its length.
func sectionHas(file *elf.File, name, text string, limit int64) bool {
	s := file.Section(name)
	if s == nil || s.Type == elf.SHT_NOBITS {
		return false
	}
	return scan(io.LimitReader(s.Open(), limit), []byte(text)) != nil
}

// scan for a text; it returns what was read from there on, a few hundred bytes at most.
func scan(r io.Reader, text []byte) []byte {
	buf := make([]byte, 0, 128<<10)
	for {
		n, err := io.ReadFull(r, buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if i := bytes.Index(buf, text); i >= 0 {
			rest, _ := io.ReadAll(io.LimitReader(r, 512))
			return append(slices.Clone(buf[i:]), rest...)
		}
		if err != nil {
			return nil
		}
		buf = append(buf[:0], buf[len(buf)-len(text):]...)
	}
}

var glibcVersion = regexp.MustCompile(`^GNU C Library[ -~]{0,200}?version ([0-9]+\.[0-9]+)`)

// libcOf an image: glibc says which it is in a text of its own.
func (r imageRoot) libcOf(f oracle.ImageFacts) string {
	if f.Libc != "" || f.Static || !slices.Contains(f.Needs, "libc.so.6") {
		return f.Libc
	}
	for _, dir := range []string{
		"/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib/aarch64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/lib64", "/usr/lib64",
		"/lib", "/usr/lib", "/lib/i386-linux-gnu", "/lib32",
	} {
		file, _, err := r.open(dir + "/libc.so.6")
		if err != nil {
			continue
		}
		found := scan(io.LimitReader(file, libcScan), []byte("GNU C Library"))
		file.Close()
		if m := glibcVersion.FindSubmatch(found); m != nil {
			return "glibc " + string(m[1])
		}
		return "glibc"
	}
	return ""
}
