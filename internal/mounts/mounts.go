// SPDX-License-Identifier: Apache-2.0

// Package mounts tells on which mount of a process an open file lies, and of which type that is. It asks the kernel and
// never the file system, which may be served by a process that does not answer (FUSE). It opens no file of a container.
package mounts

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// local are the file systems that answer from this machine's memory and disks. Any other may be served by a process that
// never answers: fuse, 9p, nfs and whatever comes.
var local = []string{
	"overlay", "ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "tmpfs", "ramfs", "rootfs", "f2fs", "bcachefs", "squashfs", "erofs",
}

// maxTable bounds what is read of a mount table, which the container may make as long as it likes. Its root comes early.
const maxTable = 1 << 20

// Mount is one line of a process's mount table.
type Mount struct {
	ID       uint64 // as mountinfo has it; used again after the mount is gone
	Type     string
	ReadOnly bool // nobody can write through it, which says nothing about other mounts of the file system
}

// Local reports whether the file system answers by itself. An overlay is believed: one over FUSE, with the latter
// detached, is not seen here, but takes a container that was given /dev/fuse.
func (m Mount) Local() bool { return slices.Contains(local, m.Type) }

// InMemory reports whether the files are gone with the machine's power, as those of a scratch directory are.
func (m Mount) InMemory() bool { return slices.Contains([]string{"tmpfs", "ramfs", "rootfs"}, m.Type) }

// Of is the mount of an open file, as far as the mount table of a process tells; proc is a directory /proc/PID. statfs
// would tell too, by asking the file system.
func Of(proc, fd int) (Mount, error) {
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_MNT_ID, &st); err != nil {
		return Mount{}, fmt.Errorf("identify the mount: %w", err)
	}
	if st.Mask&unix.STATX_MNT_ID == 0 {
		return Mount{}, errors.New("identify the mount: the kernel does not tell (Linux 5.8 does)")
	}
	return Find(proc, st.Mnt_id)
}

// Find a mount by its number in the mount table of a process.
func Find(proc int, id uint64) (Mount, error) {
	fd, err := unix.Openat(proc, "mountinfo", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return Mount{}, fmt.Errorf("open the mounts: %w", err)
	}
	f := os.NewFile(uintptr(fd), "mountinfo")
	defer func() { _ = f.Close() }()
	return find(io.LimitReader(f, maxTable), id)
}

// find a mount in a table as /proc/PID/mountinfo has it. The kernel escapes the spaces of paths, so the first lone dash
// ends the fields that vary.
func find(table io.Reader, id uint64) (Mount, error) {
	prefix := strconv.AppendUint(nil, id, 10)
	prefix = append(prefix, ' ')
	lines := bufio.NewScanner(table)
	for lines.Scan() {
		if !bytes.HasPrefix(lines.Bytes(), prefix) {
			continue
		}
		head, rest, _ := bytes.Cut(lines.Bytes(), []byte(" - "))
		fs, _, ok := bytes.Cut(rest, []byte(" "))
		if !ok {
			return Mount{}, fmt.Errorf("read mount %d: no file system", id)
		}
		return Mount{ID: id, Type: string(fs), ReadOnly: readOnly(head)}, nil
	}
	if err := lines.Err(); err != nil {
		return Mount{}, fmt.Errorf("read the mounts: %w", err)
	}
	return Mount{}, fmt.Errorf("read the mounts: no mount %d", id)
}

// readOnly by the options of the mount, the sixth field: "36 35 98:0 /mnt1 /mnt2 ro,noatime …".
func readOnly(line []byte) bool {
	fields := bytes.Fields(line)
	return len(fields) > 5 && (bytes.Equal(fields[5], []byte("ro")) || bytes.HasPrefix(fields[5], []byte("ro,")))
}
