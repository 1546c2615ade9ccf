// SPDX-License-Identifier: Apache-2.0

package intruder

import (
	"fmt"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

const (
	readWrite        = unix.PROT_READ | unix.PROT_WRITE
	readExecute      = unix.PROT_READ | unix.PROT_EXEC
	readWriteExecute = readWrite | unix.PROT_EXEC
)

// mapped memory of its own for the instruction.
func (t *thread) mapped(p *place, origin Origin, code []byte) error {
	switch origin {
	case Anonymous:
		return t.onPage(p, code, readWriteExecute, 0)
	case Protected:
		return t.onPage(p, code, readWrite, readExecute)
	case Memfd:
		return t.inMemfd(p, code)
	case Writable:
		m, err := t.first("the C library", mapping.ofLibc)
		if err != nil {
			return err
		}
		return t.ofFile(p, m.name, readWriteExecute, code)
	case Dropped:
		name := fmt.Sprintf("/tmp/dropped-%d-%d.so", t.tid, dropped.Add(1))
		file := fmt.Sprintf("/proc/%d/root%s", t.tid, name)
		body := make([]byte, pageSize)
		copy(body[64:], code)
		if err := os.WriteFile(file, body, 0o755); err != nil {
			return err
		}
		p.later(func() error { return os.Remove(file) })
		return t.ofFile(p, name, readExecute, nil)
	}
	return fmt.Errorf("there is no origin %d", origin)
}

var dropped atomic.Uint64

// onPage of no file, which gets other rights when it is written.
func (t *thread) onPage(p *place, code []byte, rights, then uint64) error {
	if err := t.mmap(p, rights, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS, ^uint64(0)); err != nil {
		return err
	}
	if err := t.write(p.at, code); err != nil || then == 0 {
		return err
	}
	_, err := t.errand("mprotect", p.at&^(pageSize-1), pageSize, then)
	return err
}

// mmap a page until undo, and place the instruction in it.
func (t *thread) mmap(p *place, rights, flags, fd uint64) error {
	page, err := t.errand("mmap", 0, pageSize, rights, flags, fd, 0)
	if err != nil {
		return err
	}
	p.later(func() error { _, err := t.errand("munmap", page, pageSize); return err })
	p.at = page + 64
	return nil
}

// ofFile maps a file's first page. Code that is not in the file is written to the mapping.
func (t *thread) ofFile(p *place, name string, rights uint64, code []byte) error {
	at, undo, err := t.scratch(append([]byte(name), 0))
	if err != nil {
		return err
	}
	p.later(undo)
	var here int32 = unix.AT_FDCWD
	fd, err := t.errand("openat", uint64(here), at, unix.O_RDONLY|unix.O_CLOEXEC)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	defer func() { _, _ = t.errand("close", fd) }()
	if err := t.mmap(p, rights, unix.MAP_PRIVATE, fd); err != nil || code == nil {
		return err
	}
	return t.write(p.at, code)
}

func (t *thread) inMemfd(p *place, code []byte) error {
	at, undo, err := t.scratch(append(append(make([]byte, 64), code...), "\x00intruder\x00"...))
	if err != nil {
		return err
	}
	p.later(undo)
	fd, err := t.errand("memfd_create", at+64+uint64(len(code))+1, unix.MFD_CLOEXEC)
	if err != nil {
		return err
	}
	defer func() { _, _ = t.errand("close", fd) }()
	if _, err := t.errand("pwrite64", fd, at, 64+uint64(len(code)), 0); err != nil {
		return err
	}
	return t.mmap(p, readExecute, unix.MAP_PRIVATE, fd)
}
