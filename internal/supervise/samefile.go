// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// fileID names a file while it exists.
type fileID struct{ dev, ino uint64 }

// SameFile reports whether a path, seen from inside the container of a process, leads to the executable that the process
// runs: /bin/sh is /usr/bin/dash there. Anything that cannot be told is false. It does not wait for a file system that
// the container may serve itself.
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
	fd, err := openInside(root, path)
	if err != nil {
		return false
	}
	defer func() { _ = unix.Close(fd) }()
	found, err := identify(fd)
	return err == nil && found == exe
}

// resolveCached is RESOLVE_CACHED of linux/openat2.h (Linux 5.12): resolve from what the kernel remembers, or give EAGAIN.
const resolveCached = 0x20

// openInside resolves a path below root without ever waiting: the container may serve any part of the path itself, by
// FUSE, and answer never. What the kernel would have to ask a file system for is not found. That is rare for a program
// that runs, since starting it walked the same names; remember a yes, which stays true while the process does not exec.
func openInside(root int, path string) (fd int, err error) {
	how := unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS | resolveCached,
	}
	for range 4 { // EAGAIN, too, when a directory anywhere was renamed meanwhile
		fd, err = unix.Openat2(root, path, &how)
		if err == nil || (!errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN)) {
			break
		}
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
