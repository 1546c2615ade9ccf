// SPDX-License-Identifier: Apache-2.0

package origin

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/mounts"
)

// identity of a file's content: whoever writes to a file changes its ctime, which nobody can set.
type identity struct {
	dev, ino, size uint64
	mtime, ctime   unix.StatxTimestamp
}

// file is a mapped file, open as a path: its file system was not asked for anything.
type file struct {
	fd    int
	id    identity
	links uint32
	mount uint64
}

func (f *file) close() { _ = unix.Close(f.fd) }

// mountUnique is STATX_MNT_ID_UNIQUE of linux/stat.h (Linux 6.8): an id that is never used again.
const mountUnique = 0x4000

// file of a mapping. The link in map_files leads to the very file that is mapped, whatever its path leads to now.
func (p *process) file(m mapping) (*file, error) {
	name := make([]byte, 0, 64)
	name = append(name, "map_files/"...)
	name = strconv.AppendUint(name, m.start, 16)
	name = append(name, '-')
	name = strconv.AppendUint(name, m.end, 16)
	fd, err := unix.Openat(p.dir, string(name), unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open the mapped file: %w", err)
	}
	f := &file{fd: fd}
	if err := f.stat(); err != nil {
		f.close()
		return nil, err
	}
	return f, nil
}

// stat asks for no more than what the kernel has at hand: fstat would ask a FUSE daemon, and wait for it.
func (f *file) stat() error {
	st, err := statx(f.fd, unix.STATX_BASIC_STATS)
	if err != nil {
		return fmt.Errorf("identify the mapped file: %w", err)
	}
	f.id = identity{
		dev: unix.Mkdev(st.Dev_major, st.Dev_minor), ino: st.Ino, size: st.Size, mtime: st.Mtime, ctime: st.Ctime,
	}
	f.links, f.mount = st.Nlink, st.Mnt_id
	return nil
}

func statx(fd, mask int) (st unix.Statx_t, err error) {
	mask |= mountUnique | unix.STATX_MNT_ID
	err = unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC|unix.AT_NO_AUTOMOUNT, mask, &st)
	if err == nil && int(st.Mask)&mask&^(mountUnique|unix.STATX_MNT_ID) != mask&^(mountUnique|unix.STATX_MNT_ID) {
		err = errors.New("the file system does not tell")
	}
	if err == nil && st.Mask&(mountUnique|unix.STATX_MNT_ID) == 0 {
		err = errors.New("the kernel does not tell the mount (Linux 5.8 does)")
	}
	return st, err
}

// foreign says why something in the container can have written a file, or "".
func (p *process) foreign(f *file, home Home) (string, error) {
	if f.links == 0 {
		return "the file was deleted", nil
	}
	if f.mount != home.mount {
		m, err := p.mountOf(f)
		if err != nil {
			return "", err
		}
		switch {
		case !m.Local():
			return "the file is on " + printable(m.Type), nil
		case m.ReadOnly:
		case m.InMemory():
			return "the file is in memory, on " + m.Type, nil
		case !home.shared:
			return "the file is on a volume that the container can write to", nil
		}
	}
	if changed := time.Unix(f.id.ctime.Sec, int64(f.id.ctime.Nsec)); !changed.Before(home.began) {
		return "the file was written after the container had started", nil
	}
	return "", nil
}

// local reports whether a read of the file waits for nobody but this machine's disks.
func (p *process) local(f *file, home Home) bool {
	if f.mount == home.mount && home.local {
		return true
	}
	m, err := p.mountOf(f)
	return err == nil && m.Local()
}

// maxMounts that are looked up for one question. The container makes the table that each is looked up in.
const maxMounts = 16

// mountOf a file that is not on the container's root.
func (p *process) mountOf(f *file) (mounts.Mount, error) {
	if m, ok := p.mounts[f.mount]; ok {
		return m, nil
	}
	if p.quick {
		p.slow = true
		return mounts.Mount{}, errors.New("it takes too long now")
	}
	if len(p.mounts) >= maxMounts {
		return mounts.Mount{}, fmt.Errorf("its files are on more than %d mounts", maxMounts)
	}
	m, err := mounts.Of(p.dir, f.fd)
	if err == nil {
		if p.mounts == nil {
			p.mounts = map[uint64]mounts.Mount{}
		}
		p.mounts[f.mount] = m
	}
	return m, err
}
