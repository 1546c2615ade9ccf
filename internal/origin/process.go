// SPDX-License-Identifier: Apache-2.0

package origin

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/mounts"
)

// process is the directory of a thread in /proc, which never becomes another's. A thread's id leads there, too.
type process struct {
	dir, maps int
	text      bool // the list of mappings is read as text
	quick     bool // read no table of mounts
	slow      bool // one had to be read
	g         *Gatherer
	mounts    map[uint64]mounts.Mount // by number
}

func (g *Gatherer) open(tid int) (*process, error) {
	if tid <= 0 {
		return nil, errors.New("no such thread in this pid namespace")
	}
	dir, err := unix.Open("/proc/"+strconv.Itoa(tid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open the thread's directory in /proc: %w", err)
	}
	// Opened anew for each question: an open file stays with the memory that the process had before it executed.
	maps, err := unix.Openat(dir, "maps", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		_ = unix.Close(dir)
		return nil, fmt.Errorf("open the list of mappings: %w", err)
	}
	return &process{dir: dir, maps: maps, text: g.noIoctl.Load(), g: g}, nil
}

func (p *process) close() {
	_ = unix.Close(p.maps)
	_ = unix.Close(p.dir)
}

// Bits of an entry in /proc/PID/pagemap (Documentation/admin-guide/mm/pagemap.rst).
const (
	pagePresent = 1 << 63
	pageSwapped = 1 << 62
	pageOfFile  = 1 << 61 // of a file, or shared
)

var pageSize = uint64(os.Getpagesize())

// modified reports whether a page that holds one of two addresses of a file's private mapping is not the file's any more:
// a write makes it a copy without a file, also when the mapping is not writable now. A page that is not there was not
// written. Breakpoints of debuggers and uprobes are such writes.
func (p *process) modified(first, last uint64) (bool, error) {
	fd, err := unix.Openat(p.dir, "pagemap", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, fmt.Errorf("open the page map: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	var b [16]byte
	page := first / pageSize
	want := 8 * (last/pageSize - page + 1)
	n, err := unix.Pread(fd, b[:want], int64(page*8))
	if err != nil {
		return false, fmt.Errorf("read the page map: %w", err)
	}
	if uint64(n) != want {
		return false, errors.New("read the page map: it ends before the page")
	}
	for entry := b[:want]; len(entry) > 0; entry = entry[8:] {
		bits := binary.NativeEndian.Uint64(entry)
		if bits&pageSwapped != 0 || (bits&pagePresent != 0 && bits&pageOfFile == 0) {
			return true, nil
		}
	}
	return false, nil
}

// printable: a name may hold anything but a zero byte.
func printable(name string) string {
	quoted := strconv.QuoteToGraphic(name)
	return strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
}
