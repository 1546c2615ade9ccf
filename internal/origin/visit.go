// SPDX-License-Identifier: Apache-2.0

package origin

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/elfcalls"
)

// object is a file that a process has mapped, and that came with its container.
type object struct {
	*entry
	path string // printable
}

// mapped is what was found in one process.
type mapped struct {
	objects []object
	missed  int    // files that were not read, or not in full
	why     string // the first was missed
	when    time.Time
}

// lasts is how long a process with the same layout is believed to have the same files. A file that was mapped meanwhile
// without changing the layout is missed as long, and its calls refused; one that is gone, or was written to, came with
// the container and only says what it always said.
func (m *mapped) lasts() time.Duration {
	if m.missed > 0 {
		return time.Second
	}
	return 10 * time.Second
}

// layout tells processes with other files apart, by the two lowest executable mappings: the addresses are random for each
// program that is executed, forked processes have their parent's, and a library that is loaded goes below the others.
type layout struct {
	home          Home
	first, second mapping
}

// layout of a process. Without a home it has none: that is found for each process anew.
func (g *Gatherer) layout(p *process) (layout, bool) {
	if g.home == nil {
		return layout{}, false
	}
	l := layout{home: *g.home}
	n := 0
	err := p.executables(func(m mapping) bool {
		m.name = ""
		if n++; n == 1 {
			l.first = m
			return true
		}
		l.second = m
		return false
	})
	return l, err == nil && n > 0
}

// visit of the files that a process has mapped.
type visit struct {
	mapped
	g    *Gatherer
	p    *process
	home Home
	left int64 // bytes that may be read
}

// visit every file of a process.
func (g *Gatherer) visit(p *process, bytes int64) (*mapped, error) {
	home, err := g.homeOf(p)
	if err != nil {
		return nil, err
	}
	key, ok := g.layout(p)
	v := &visit{g: g, p: p, home: home, left: bytes}
	type number struct{ dev, inode uint64 }
	seen := make(map[number]bool, 32)
	err = p.executables(func(m mapping) bool {
		n := number{m.dev, m.inode}
		if seen[n] {
			return true
		}
		if len(seen) >= maxObjects {
			v.miss(fmt.Errorf("more than %d files", maxObjects))
			return false
		}
		seen[n] = true
		v.look(m)
		return true
	})
	if err != nil {
		return nil, err
	}
	if v.when = time.Now(); ok {
		g.layouts.put(key, &v.mapped)
	}
	return &v.mapped, nil
}

func (v *visit) miss(err error) {
	if v.missed++; v.missed == 1 {
		v.why = err.Error()
	}
}

// look at the file of a mapping.
func (v *visit) look(m mapping) {
	f, err := v.p.file(m)
	if err != nil {
		v.miss(err)
		return
	}
	defer f.close()
	foreign, err := v.p.foreign(f, v.home)
	if err != nil {
		v.miss(err)
	}
	if err != nil || foreign != "" {
		return
	}
	e, ok := v.g.files.get(f.id)
	if !ok || (e.cut && v.left > heldBytes) {
		if e, err = v.read(f); err != nil {
			v.miss(err)
			return
		}
	}
	v.objects = append(v.objects, object{entry: e, path: printable(v.p.nameOf(m))})
	if e.cut {
		v.miss(errors.New(e.calls.Partial))
	}
}

// read a file, and keep what it says if it is the same file afterwards.
func (v *visit) read(f *file) (*entry, error) {
	if !v.p.local(f, v.home) {
		return nil, errors.New("it is on a file system that may not answer")
	}
	// O_NONBLOCK: an open waits for whoever holds a lease on the file.
	fd, err := unix.Open("/proc/self/fd/"+strconv.Itoa(f.fd), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open for reading: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	r := &preader{fd: fd}
	limits := elfcalls.DefaultLimits()
	limits.Bytes = min(limits.Bytes, v.left)
	calls, err := elfcalls.Read(r, int64(f.id.size), limits)
	v.left -= r.read
	before := f.id
	if again := f.stat(); again != nil || f.id != before {
		return nil, errors.Join(errors.New("it changed while it was read"), again)
	}
	e := &entry{calls: calls, cut: calls.Cut && limits.Bytes < elfcalls.DefaultLimits().Bytes}
	if err != nil {
		if r.err != nil {
			return nil, r.err // the disk's, not the file's: it may be read the next time
		}
		e.err = err.Error()
	}
	v.g.files.put(before, e)
	return e, nil
}
