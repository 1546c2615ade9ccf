// SPDX-License-Identifier: Apache-2.0

package origin

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/mounts"
)

// Home is what a container's image came with: the files on the mount of its root that are older than the container.
type Home struct {
	mount  uint64
	local  bool
	shared bool // the mount namespace is ours: the container is a command of this host
	began  time.Time
}

// HomeOf the container whose first process this is. It is to be asked for while that process is the container's first, and
// before the container can have changed its root: when supervision starts.
func HomeOf(pid int) (Home, error) {
	p, err := NewGatherer(1).open(pid)
	if err != nil {
		return Home{}, err
	}
	defer p.close()
	return p.home()
}

func (p *process) home() (Home, error) {
	root, err := unix.Openat(p.dir, "root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return Home{}, fmt.Errorf("open the process's root: %w", err)
	}
	defer func() { _ = unix.Close(root) }()
	st, err := statx(root, 0)
	if err != nil {
		return Home{}, fmt.Errorf("identify the process's root: %w", err)
	}
	s, err := p.stat()
	if err != nil {
		return Home{}, err
	}
	began, err := sinceBoot(s.start)
	if err != nil {
		return Home{}, err
	}
	m, err := mounts.Of(p.dir, root)
	return Home{mount: st.Mnt_id, local: err == nil && m.Local(), shared: p.sameNamespace("ns/mnt", "/proc/self/ns/mnt"), began: began}, nil
}

// maxAncestors: a deeper process finds no home, and all its files are foreign.
const maxAncestors = 64

// findHome of a process by its oldest ancestor in its pid namespace: in a container that is its first process. A process
// in our own pid namespace is its own first.
func findHome(p *process) (Home, error) {
	if p.sameNamespace("ns/pid", "/proc/self/ns/pid") {
		return p.home()
	}
	own, first, err := p.link("ns/pid"), p, error(nil)
	defer func() {
		if first != p {
			first.close()
		}
	}()
	for range maxAncestors {
		s, err := first.stat()
		if err != nil {
			return Home{}, err
		}
		parent, err := p.g.open(s.parent)
		if err != nil || own == "" || parent.link("ns/pid") != own {
			if err == nil {
				parent.close()
			}
			return first.home()
		}
		if first != p {
			first.close()
		}
		first = parent
	}
	return Home{}, errors.Join(err, errors.New("find the container's first process: too many ancestors"))
}

func (p *process) link(name string) string {
	var b [64]byte
	n, err := unix.Readlinkat(p.dir, name, b[:])
	if err != nil {
		return ""
	}
	return string(b[:n])
}

func (p *process) sameNamespace(name, ours string) bool {
	var b [64]byte
	n, err := unix.Readlink(ours, b[:])
	return err == nil && p.link(name) == string(b[:n])
}

// status of a process from /proc/PID/stat.
type status struct {
	parent int
	start  uint64 // ticks since the machine booted
}

func (p *process) stat() (status, error) {
	fd, err := unix.Openat(p.dir, "stat", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return status{}, fmt.Errorf("open the process's status: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	var b [1024]byte
	n, err := unix.Read(fd, b[:])
	if err != nil {
		return status{}, fmt.Errorf("read the process's status: %w", err)
	}
	return parseStat(b[:n])
}

// parseStat: the name of the program, in parentheses, may hold parentheses and spaces.
func parseStat(line []byte) (status, error) {
	_, rest, _ := bytes.Cut(line, []byte(" ("))
	end := bytes.LastIndexByte(rest, ')')
	fields := bytes.Fields(rest[end+1:])
	if end < 0 || len(fields) < 20 {
		return status{}, errors.New("read the process's status: it is cut")
	}
	parent, err := strconv.Atoi(string(fields[1]))
	if err != nil {
		return status{}, fmt.Errorf("read the process's status: %w", err)
	}
	start, err := strconv.ParseUint(string(fields[19]), 10, 64)
	if err != nil {
		return status{}, fmt.Errorf("read the process's status: %w", err)
	}
	return status{parent: parent, start: start}, nil
}

// sinceBoot is the time of a number of ticks since boot. USER_HZ is 100 on every architecture that we know. It is off by
// what the clock was set since then. Ticks are cut, and a file's times may be of the tick before: one more is taken off.
func sinceBoot(ticks uint64) (time.Time, error) {
	var boot unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot); err != nil {
		return time.Time{}, fmt.Errorf("read the time since boot: %w", err)
	}
	if ticks > uint64(boot.Sec+1)*100 {
		return time.Time{}, errors.New("the process started in the future")
	}
	return time.Now().Add((time.Duration(ticks)-1)*(time.Second/100) - time.Duration(boot.Nano())), nil
}
