// SPDX-License-Identifier: Apache-2.0

package origin

import (
	"bytes"
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mapping of a process, as the kernel lists it.
type mapping struct {
	start, end, offset uint64
	write, exec        bool
	dev, inode         uint64
	name               string
}

// errNone: nothing is mapped there, or nothing more.
var errNone = errors.New("nothing is mapped there")

// procmapQuery is struct procmap_query (linux/fs.h, since 6.11).
type procmapQuery struct {
	size, flags, addr               uint64
	start, end, vmaFlags, page, off uint64
	inode                           uint64
	devMajor, devMinor              uint32
	nameSize, buildIDSize           uint32
	nameAddr, buildIDAddr           uint64
}

const (
	ioctlProcmapQuery = 0xc0686611

	queryExec   = 0x04
	queryWrite  = 0x02
	queryOrNext = 0x10
	queryOfFile = 0x20
)

// query asks for one mapping. The build id is not asked for: the kernel would read the file for it, and wait for whoever
// serves it, while the process's memory is locked.
func (p *process) query(addr, flags uint64, named bool) (mapping, error) {
	q := procmapQuery{size: uint64(unsafe.Sizeof(procmapQuery{})), flags: flags, addr: addr}
	var name [unix.PathMax]byte
	if named {
		q.nameSize, q.nameAddr = uint32(len(name)), uint64(uintptr(unsafe.Pointer(&name[0])))
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(p.maps), ioctlProcmapQuery, uintptr(unsafe.Pointer(&q))); errno != 0 {
		if errno == unix.ENOENT {
			return mapping{}, errNone
		}
		return mapping{}, fmt.Errorf("ask for the mapping at %#x: %w", addr, errno)
	}
	m := mapping{
		start: q.start, end: q.end, offset: q.off, inode: q.inode,
		dev:   unix.Mkdev(q.devMajor, q.devMinor),
		write: q.vmaFlags&queryWrite != 0, exec: q.vmaFlags&queryExec != 0,
	}
	if named && q.nameSize > 0 {
		raw, _, _ := bytes.Cut(name[:min(int(q.nameSize), len(name))], []byte{0})
		m.name = string(raw)
	}
	return m, nil
}

// at is the mapping that an address lies in.
func (p *process) at(addr uint64) (mapping, error) {
	if !p.text {
		m, err := p.query(addr, 0, true)
		if !p.lacks(err) {
			return m, err
		}
	}
	found, err := mapping{}, errNone
	scan := p.scan(func(m mapping) bool {
		if addr >= m.start && addr < m.end {
			found, err = m, nil
		}
		return m.end <= addr
	})
	if scan != nil {
		return mapping{}, scan
	}
	return found, err
}

// lacks reports whether an error says that the kernel has no PROCMAP_QUERY, and remembers it. No other error does.
func (p *process) lacks(err error) bool {
	if !errors.Is(err, unix.ENOTTY) {
		return false
	}
	p.g.noIoctl.Store(true)
	p.text = true
	return true
}

// maxMappings bounds how many of the executable mappings are looked at.
const maxMappings = 4096

// executables calls each for the executable mappings of files, in the order of their addresses, until it says no.
func (p *process) executables(each func(mapping) bool) error {
	var addr uint64
	for range maxMappings {
		if p.text {
			return p.scan(func(m mapping) bool { return !m.exec || m.inode == 0 || each(m) })
		}
		m, err := p.query(addr, queryOrNext|queryOfFile|queryExec, false)
		if p.lacks(err) {
			continue
		}
		if errors.Is(err, errNone) {
			return nil
		}
		if err != nil {
			return err
		}
		if !each(m) {
			return nil
		}
		addr = m.end
	}
	return fmt.Errorf("list the executable mappings: there are more than %d", maxMappings)
}

// nameOf the file of a mapping that was listed without it.
func (p *process) nameOf(m mapping) string {
	if m.name == "" && !p.text {
		if named, err := p.query(m.start, 0, true); err == nil {
			return named.name
		}
	}
	return m.name
}
