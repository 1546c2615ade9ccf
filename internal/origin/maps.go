// SPDX-License-Identifier: Apache-2.0

package origin

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// maxText bounds what is read of a list of mappings: 100,000 lines, where the kernel allows a process 65,530 mappings
// unless it is told otherwise. A process with more is not seen through.
const maxText = 8 << 20

var errLong = errors.New("read the list of mappings: it is too long")

// scan the list of mappings as text, until each says no.
func (p *process) scan(each func(mapping) bool) error {
	return scanMaps(&fdReader{fd: p.maps}, each)
}

// fdReader reads a descriptor that somebody else closes.
type fdReader struct {
	fd  int
	off int64
}

func (r *fdReader) Read(b []byte) (int, error) {
	n, err := unix.Pread(r.fd, b, r.off)
	if err != nil {
		return 0, err
	}
	if n == 0 {
		return 0, io.EOF
	}
	r.off += int64(n)
	return n, nil
}

func scanMaps(r io.Reader, each func(mapping) bool) error {
	limited := &io.LimitedReader{R: r, N: maxText}
	lines := bufio.NewScanner(limited)
	// A path has up to 4096 bytes, of which each may be a line's end that the kernel writes as four.
	lines.Buffer(make([]byte, 0, 8<<10), 32<<10)
	for lines.Scan() {
		if limited.N == 0 {
			return errLong // the line may be cut
		}
		m, err := parseMapping(lines.Bytes())
		if err != nil {
			return err
		}
		if !each(m) {
			return nil
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read the list of mappings: %w", err)
	}
	if limited.N == 0 {
		return errLong
	}
	return nil
}

// parseMapping reads a line: "55de2f815000-55de2f819000 r-xp 00002000 fd:01 1234   /usr/bin/cat".
func parseMapping(line []byte) (mapping, error) {
	var m mapping
	var fields [5][]byte
	for i := range fields {
		var ok bool
		if fields[i], line, ok = bytes.Cut(line, []byte(" ")); !ok && i < 4 {
			return m, errors.New("read the list of mappings: a line is short")
		}
	}
	from, to, _ := strings.Cut(string(fields[0]), "-")
	major, minor, _ := strings.Cut(string(fields[3]), ":")
	var err error
	number := func(s string, base int) uint64 {
		n, wrong := strconv.ParseUint(s, base, 64)
		err = errors.Join(err, wrong)
		return n
	}
	m.start, m.end = number(from, 16), number(to, 16)
	m.offset = number(string(fields[2]), 16)
	m.dev = unix.Mkdev(uint32(number(major, 16)), uint32(number(minor, 16)))
	m.inode = number(string(fields[4]), 10)
	if err != nil || len(fields[1]) < 4 {
		return m, fmt.Errorf("read the list of mappings: a line is not understood: %w", err)
	}
	m.write, m.exec = fields[1][1] == 'w', fields[1][2] == 'x'
	// The kernel escapes the end of a line in a name and nothing else, so a name that holds the four characters `\012` is
	// taken for one with a line's end. Names are only shown.
	m.name = strings.ReplaceAll(strings.TrimLeft(string(line), " "), `\012`, "\n")
	return m, nil
}
