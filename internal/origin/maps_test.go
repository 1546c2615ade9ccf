// SPDX-License-Identifier: Apache-2.0

package origin

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// codeAddress is in the text of this program.
func codeAddress() uintptr { return reflect.ValueOf(codeAddress).Pointer() + 8 }

func TestParseMapping(t *testing.T) {
	for _, test := range []struct {
		line string
		want mapping
		fail bool
	}{
		{line: "55de2f815000-55de2f819000 r-xp 00002000 fd:01 1234                       /usr/bin/cat", want: mapping{
			start: 0x55de2f815000, end: 0x55de2f819000, offset: 0x2000, exec: true, dev: unix.Mkdev(0xfd, 1), inode: 1234, name: "/usr/bin/cat"}},
		{line: "1000-2000 rwxs 0 00:01 9 /memfd:a b (deleted)", want: mapping{
			start: 0x1000, end: 0x2000, write: true, exec: true, dev: 1, inode: 9, name: "/memfd:a b (deleted)"}},
		{line: `1000-2000 r--p 0 00:01 9 /a\012b`, want: mapping{start: 0x1000, end: 0x2000, dev: 1, inode: 9, name: "/a\nb"}},
		{line: "1000-2000 ---p 00000000 00:00 0 ", want: mapping{start: 0x1000, end: 0x2000}},
		{line: "1000-2000 ---p 00000000 00:00 0", want: mapping{start: 0x1000, end: 0x2000}},
		{line: "", fail: true},
		{line: "1000-2000 r 0 00:01 9 x", fail: true},
		{line: "1000-2000 r-xp 0 0001 9 x", fail: true},
		{line: "1000 r-xp 0 00:01 9 x", fail: true},
		{line: "1000-2000 r-xp 0 00:01 -9 x", fail: true},
	} {
		got, err := parseMapping([]byte(test.line))
		if (err != nil) != test.fail || (!test.fail && got != test.want) {
			t.Errorf("parseMapping(%q) = %+v, %v, want %+v", test.line, got, err, test.want)
		}
	}
}

// endless is a list of mappings without an end.
type endless struct {
	n, read int
	rest    string
}

func (e *endless) Read(b []byte) (int, error) {
	if e.rest == "" {
		e.rest = fmt.Sprintf("%x-%x r--p 00000000 00:00 0 \n", e.n<<12, e.n<<12+4096)
		e.n++
	}
	n := copy(b, e.rest)
	e.rest, e.read = e.rest[n:], e.read+n
	return n, nil
}

func TestScanIsBounded(t *testing.T) {
	e := new(endless)
	if err := scanMaps(e, func(mapping) bool { return true }); !errors.Is(err, errLong) {
		t.Errorf("an endless list gave %v", err)
	}
	if e.read > 2*maxText {
		t.Errorf("%d bytes of an endless list were read", e.read)
	}
	e = new(endless)
	if err := scanMaps(e, func(m mapping) bool { return m.end <= 50<<12 }); err != nil || e.n > 1000 {
		t.Errorf("a scan that was to stop read %d lines, %v", e.n, err)
	}
	if err := scanMaps(strings.NewReader(strings.Repeat("x", 1<<20)), func(mapping) bool { return true }); err == nil {
		t.Error("an endless line was read")
	}
}

func FuzzScanMaps(f *testing.F) {
	f.Add("55de2f815000-55de2f819000 r-xp 00002000 fd:01 1234   /usr/bin/cat\n1000-2000 rwxs 0 00:01 9 /a\\012b\n")
	f.Fuzz(func(t *testing.T, list string) {
		_ = scanMaps(strings.NewReader(list), func(m mapping) bool {
			m.class()
			if strings.ContainsAny(printable(m.name), "\n\x00\x1b") {
				t.Errorf("%q is not printable", printable(m.name))
			}
			return true
		})
	})
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("1 (a) b) S 7 1 1 0 -1 4194560 1 1 1 1 1 1 1 1 20 0 1 0 12345 1 1"))
	f.Fuzz(func(_ *testing.T, line []byte) { _, _ = parseStat(line) })
}

func TestParseStat(t *testing.T) {
	got, err := parseStat([]byte("1 (a) R 9 (b) S 7 1 1 0 -1 4194560 1 1 1 1 1 1 1 1 20 0 1 0 12345 1 1"))
	if want := (status{parent: 7, start: 12345}); err != nil || got != want {
		t.Errorf("parseStat = %+v, %v, want %+v", got, err, want)
	}
}
