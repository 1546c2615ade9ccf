// SPDX-License-Identifier: Apache-2.0

package intruder

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"
)

// mapping is a line of /proc/PID/maps.
type mapping struct {
	start, end uint64
	rights     string
	name       string // the kernel's, or the file's
	line       string
}

func (m mapping) code() bool { return m.rights[2] == 'x' && m.rights[1] == '-' }

// ofLibc: the C library is where a program's calls are, and in musl the loader is the C library.
func (m mapping) ofLibc() bool {
	base := path.Base(m.name)
	return strings.HasPrefix(base, "libc.so") || strings.HasPrefix(base, "libc-2.") || strings.HasPrefix(base, "ld-musl")
}

func (t *thread) mappings() (all []mapping, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", t.tid))
	if err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		m := mapping{line: lines.Text()}
		fields := strings.Fields(m.line)
		if len(fields) < 5 || len(fields[1]) != 4 {
			return nil, fmt.Errorf("read its mappings: %q", m.line)
		}
		if len(fields) > 5 { // it may have spaces in it
			m.name = m.line[strings.Index(m.line, " "+fields[4]+" ")+len(fields[4])+2:]
			m.name = strings.TrimLeft(m.name, " ")
		}
		start, end, _ := strings.Cut(fields[0], "-")
		var bad error
		if m.start, err = strconv.ParseUint(start, 16, 64); err == nil {
			m.end, bad = strconv.ParseUint(end, 16, 64)
		}
		if err != nil || bad != nil {
			return nil, fmt.Errorf("read its mappings: %q", m.line)
		}
		m.rights = fields[1]
		all = append(all, m)
	}
	return all, lines.Err()
}

// mapping that an address lies in.
func (t *thread) mapping(at uint64) (mapping, bool, error) {
	all, err := t.mappings()
	for _, m := range all {
		if at >= m.start && at < m.end {
			return m, true, nil
		}
	}
	return mapping{}, false, err
}

// first mapping that is as it should be.
func (t *thread) first(what string, ok func(mapping) bool) (mapping, error) {
	all, err := t.mappings()
	if err != nil {
		return mapping{}, err
	}
	for _, m := range all {
		if ok(m) {
			return m, nil
		}
	}
	return mapping{}, fmt.Errorf("it has no mapping of %s", what)
}

func (t *thread) read(at uint64, p []byte) error { return t.memory(os.O_RDONLY, at, p) }

// write also where the process itself may not: the page is copied then, as PTRACE_POKETEXT does it.
func (t *thread) write(at uint64, p []byte) error { return t.memory(os.O_WRONLY, at, p) }

func (t *thread) memory(how int, at uint64, p []byte) error {
	f, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", t.tid), how, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if how == os.O_RDONLY {
		_, err = f.ReadAt(p, int64(at))
	} else {
		_, err = f.WriteAt(p, int64(at))
	}
	if err != nil {
		return fmt.Errorf("reach its memory at %#x: %w", at, err)
	}
	return nil
}

// overwrite memory, until undo.
func (t *thread) overwrite(at uint64, with []byte) (undo func() error, err error) {
	old := make([]byte, len(with))
	if err := t.read(at, old); err != nil {
		return nil, err
	}
	return func() error { return t.write(at, old) }, t.write(at, with)
}

// scratch is a text on its stack, below what it uses, for as long as it stands still.
func (t *thread) scratch(text []byte) (at uint64, undo func() error, err error) {
	if len(text) > maxScratch {
		return 0, nil, fmt.Errorf("%d bytes are too many for its stack", len(text))
	}
	at = stackPointer(&t.before) - redZone - maxScratch
	undo, err = t.overwrite(at, text)
	return at, undo, err
}

const (
	redZone    = 128
	maxScratch = 512
)
