// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/mounts"
)

// resolveCached is RESOLVE_CACHED of linux/openat2.h (Linux 5.12): resolve from what the kernel remembers, or give EAGAIN.
const resolveCached = 0x20

// fileID names a file while it exists.
type fileID struct{ dev, ino uint64 }

// SameFile reports whether a path, seen from inside the container of a process, leads to the executable that the process
// runs: /bin/sh is /usr/bin/dash there. Anything that cannot be told is false. It does not wait for a file system that
// the container may serve itself. A yes stays true until the process executes another program.
func SameFile(tgid int, path string) bool {
	dir, err := openProc(tgid)
	if err != nil {
		return false
	}
	defer func() { _ = unix.Close(dir) }()
	exe, err := exeFile(dir)
	if err != nil {
		return false
	}
	// A magic link: it leads straight to the directory, through no file system of the container.
	root, err := unix.Openat(dir, "root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer func() { _ = unix.Close(root) }()
	fd, err := openInside(dir, root, path)
	if err != nil {
		return false
	}
	defer func() { _ = unix.Close(fd) }()
	found, err := identify(fd)
	return err == nil && found == exe
}

// openInside resolves a path below the root of a process. First from what the kernel remembers, which never waits, and
// nearly always knows the names of a program that runs. It does not know the symbolic links of an overlay, though
// (ovl_get_link), and /bin is one. So the second walk may ask the root's file system, where that is a local one, and
// never enters a mount below it. What is not found so is not found.
func openInside(proc, root int, path string) (int, error) {
	const inside = unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS
	fd, err := openat2(root, path, inside|resolveCached)
	// EINVAL: Linux before 5.12 has no RESOLVE_CACHED.
	if (errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINVAL)) && onLocal(proc, root) {
		return openat2(root, path, inside|unix.RESOLVE_NO_XDEV)
	}
	return fd, err
}

// openat2 tries again a few times: EAGAIN may also say that something was renamed while ".." was resolved.
func openat2(root int, path string, resolve uint64) (fd int, err error) {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: resolve}
	for range 3 {
		fd, err = unix.Openat2(root, path, &how)
		if errors.Is(err, unix.EINTR) || (errors.Is(err, unix.EAGAIN) && resolve&resolveCached == 0) {
			continue
		}
		break
	}
	return fd, err
}

// exeFile identifies the executable behind the magic link of a directory of /proc.
func exeFile(dir int) (fileID, error) {
	fd, err := unix.Openat(dir, "exe", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return fileID{}, fmt.Errorf("open the executable: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	return identify(fd)
}

// identify asks for no more than what the kernel has at hand: fstat would ask a FUSE daemon, and wait for it.
func identify(fd int) (fileID, error) {
	var st unix.Statx_t
	const flags = unix.AT_EMPTY_PATH | unix.AT_STATX_DONT_SYNC | unix.AT_NO_AUTOMOUNT
	if err := unix.Statx(fd, "", flags, unix.STATX_INO, &st); err != nil {
		return fileID{}, fmt.Errorf("identify the executable: %w", err)
	}
	if st.Mask&unix.STATX_INO == 0 {
		return fileID{}, errors.New("identify the executable: its file system does not number files")
	}
	return fileID{dev: unix.Mkdev(st.Dev_major, st.Dev_minor), ino: st.Ino}, nil
}

// onLocal reports whether a directory of a process is on a file system that does not wait for anybody.
func onLocal(proc, dir int) bool {
	m, err := mounts.Of(proc, dir)
	return err == nil && m.Local()
}
