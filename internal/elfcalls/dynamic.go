// SPDX-License-Identifier: Apache-2.0

package elfcalls

import (
	"bytes"
	"debug/elf"
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/whittle-sec/whittle/internal/syscalls"
)

const (
	maxDynamic = 64 << 10 // of the dynamic section; a program with a thousand libraries has 16 KiB
	maxName    = 64       // of a function in our table
	maxSoname  = 255
	chunk      = 64 << 10 // of a table that is read in parts
)

// dynamic is the dynamic section: the last value of each tag.
type dynamic struct {
	tags   map[elf.DynTag]uint64
	needed int
}

func (f *image) dynamic(src *source) (dynamic, error) {
	d := dynamic{tags: make(map[elf.DynTag]uint64)}
	for _, s := range f.segments {
		if s.kind != uint32(elf.PT_DYNAMIC) {
			continue
		}
		table, err := src.read(s.off, min(s.fsize, maxDynamic))
		if err != nil {
			return d, err
		}
		d.parse(table, f.wide)
		return d, nil
	}
	return d, nil
}

func (d *dynamic) parse(table []byte, wide bool) {
	size := 8
	if wide {
		size = 16
	}
	for ; len(table) >= size; table = table[size:] {
		tag, val := uint64(le.Uint32(table)), uint64(le.Uint32(table[4:]))
		if wide {
			tag, val = le.Uint64(table), le.Uint64(table[8:])
		}
		switch t := elf.DynTag(tag); t {
		case elf.DT_NULL:
			return
		case elf.DT_NEEDED:
			d.needed++
		case elf.DT_HASH, elf.DT_GNU_HASH, elf.DT_STRTAB, elf.DT_SYMTAB, elf.DT_STRSZ, elf.DT_SONAME,
			elf.DT_JMPREL, elf.DT_PLTRELSZ, elf.DT_RELA, elf.DT_RELASZ:
			d.tags[t] = val
		}
	}
}

// readImports of the dynamic symbols, and the name of the library. indirect is the index of the symbol of syscall(2),
// which makes any call; 0 where it is not imported.
func (c *Calls) readImports(src *source, f *image, d dynamic, l Limits) (indirect uint64, err error) {
	strSize := d.tags[elf.DT_STRSZ]
	if strSize > uint64(max(l.Strings, 0)) {
		return 0, errors.New("more than the limit of strings")
	}
	names, err := f.readAddr(src, d.tags[elf.DT_STRTAB], strSize)
	if err != nil {
		return 0, err
	}
	if at, ok := d.tags[elf.DT_SONAME]; ok {
		c.Soname = printable(cstring(names, at, maxSoname))
		c.CLibrary = cLibrary(c.Soname)
	}
	if c.CLibrary {
		return 0, nil
	}
	count, err := f.symbols(src, d, uint64(max(l.Symbols, 0)))
	if err != nil {
		return 0, err
	}
	wrappers := wrappersOf(c.ABI)
	seen := make(map[string]bool)
	err = f.eachSymbol(src, d, count, func(index, nameAt uint64, info byte, section uint16) {
		kind := elf.ST_TYPE(info)
		if section != 0 || elf.ST_BIND(info) == elf.STB_LOCAL || (kind != elf.STT_FUNC && kind != elf.STT_NOTYPE && kind != elf.STT_GNU_IFUNC) {
			return
		}
		name := cstring(names, nameAt, maxName)
		if string(name) == "syscall" {
			indirect = index
		}
		w, ok := wrappers.find(name)
		if !ok || seen[w.name] {
			return
		}
		seen[w.name] = true
		c.add(w)
	})
	return indirect, err
}

// add what an imported function does. Of the functions that make a call, the one that is its wrapper comes first.
func (c *Calls) add(w wrapper) {
	if c.Imports == nil {
		c.Imports = make(map[uint32][]string)
	}
	for _, nr := range w.calls {
		if w.name == syscalls.Name(c.ABI, nr) {
			c.Imports[nr] = slices.Insert(c.Imports[nr], 0, w.name)
			continue
		}
		c.Imports[nr] = append(c.Imports[nr], w.name)
	}
}

func (f *image) symbolSize() uint64 {
	if f.wide {
		return 24
	}
	return 16
}

// eachSymbol reads the symbol table in parts. names are offsets in the string table.
func (f *image) eachSymbol(src *source, d dynamic, count uint64, each func(index, name uint64, info byte, section uint16)) error {
	size := f.symbolSize()
	per := chunk / size
	for i := uint64(0); i < count; i += per {
		part, err := f.readAddr(src, d.tags[elf.DT_SYMTAB]+i*size, min(per, count-i)*size)
		if err != nil {
			return err
		}
		for j := i; len(part) > 0; part, j = part[size:], j+1 {
			if f.wide {
				each(j, uint64(le.Uint32(part)), part[4], le.Uint16(part[6:]))
				continue
			}
			each(j, uint64(le.Uint32(part)), part[12], le.Uint16(part[14:]))
		}
	}
	return nil
}

// symbols counts the dynamic symbols, which only the hash tables tell where the section headers are not read.
func (f *image) symbols(src *source, d dynamic, limit uint64) (uint64, error) {
	count, err := f.countSymbols(src, d, limit)
	if err == nil && count > limit {
		err = errors.New("more than the limit of symbols")
	}
	return count, err
}

func (f *image) countSymbols(src *source, d dynamic, limit uint64) (uint64, error) {
	if at, ok := d.tags[elf.DT_HASH]; ok {
		head, err := f.readAddr(src, at, 8)
		if err != nil {
			return 0, err
		}
		return uint64(le.Uint32(head[4:])), nil // nchain
	}
	if at, ok := d.tags[elf.DT_GNU_HASH]; ok {
		count, err := f.countGNU(src, at, limit)
		if count > 0 || err != nil {
			return count, err
		}
	}
	// Nothing says so, but every linker puts the strings right behind the symbols.
	if first, next := d.tags[elf.DT_SYMTAB], d.tags[elf.DT_STRTAB]; first < next {
		return (next - first) / f.symbolSize(), nil
	}
	return 0, errors.New("no table tells how many symbols there are")
}

// countGNU finds the last symbol of the GNU hash table: it ends the chain of the bucket that begins last. Symbols that
// are not in the table come before those that are. 0: it is empty, as in a program that gives nothing to its libraries,
// and tells nothing.
func (f *image) countGNU(src *source, at, limit uint64) (uint64, error) {
	head, err := f.readAddr(src, at, 16)
	if err != nil {
		return 0, err
	}
	buckets, first, bloom := uint64(le.Uint32(head)), uint64(le.Uint32(head[4:])), uint64(le.Uint32(head[8:]))
	if buckets > limit || bloom > limit || first > limit {
		return 0, errors.New("a hash table over the limit of symbols")
	}
	word := uint64(4)
	if f.wide {
		word = 8
	}
	at += 16 + bloom*word
	table, err := f.readAddr(src, at, buckets*4)
	if err != nil {
		return 0, err
	}
	last := uint64(0)
	for ; len(table) > 0; table = table[4:] {
		last = max(last, uint64(le.Uint32(table)))
	}
	if last < first {
		return 0, nil
	}
	at += buckets * 4
	at += (last - first) * 4
	for last <= limit {
		_, rest, err := f.offset(at)
		if err != nil {
			return 0, err
		}
		links, err := f.readAddr(src, at, min(rest&^3, 4096))
		if err != nil {
			return 0, err
		}
		if len(links) == 0 {
			return 0, errBeyond
		}
		for ; len(links) > 0; links, at = links[4:], at+4 {
			last++
			if links[0]&1 != 0 {
				return last, nil
			}
		}
	}
	return last, nil
}

// cstring is the string at an offset of a string table, without its end; nil when it is longer than limit.
func cstring(table []byte, at uint64, limit int) []byte {
	if at >= uint64(len(table)) {
		return nil
	}
	table = table[at:]
	table = table[:min(len(table), limit+1)]
	before, _, ok := bytes.Cut(table, []byte{0})
	if !ok {
		return nil
	}
	return before
}

func printable(b []byte) string {
	quoted := strconv.QuoteToASCII(string(b))
	return strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
}

// cLibrary reports whether a library's name is one that a C library, one of its parts or its loader has: glibc's, musl's
// (libc and loader in one) and uClibc's.
func cLibrary(soname string) bool {
	for _, name := range []string{
		"libc.so.", "libc.so", "ld-linux", "ld-linux-", "ld.so.", "libc.musl-", "ld-musl-", "libpthread.so.", "libdl.so.",
		"librt.so.", "libm.so.", "libutil.so.", "libresolv.so.", "libanl.so.", "libnsl.so.1", "libnss_files.so.",
		"libnss_dns.so.", "libnss_compat.so.", "libthread_db.so.", "libBrokenLocale.so.", "ld-uClibc", "libuClibc",
	} {
		if strings.HasPrefix(soname, name) {
			return true
		}
	}
	return false
}
