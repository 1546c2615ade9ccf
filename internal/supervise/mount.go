// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"bufio"
	"bytes"
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

// maxMounts bounds what is read of a mount table, which the container may make as long as it likes. Its root comes early.
const maxMounts = 1 << 20

// onLocal reports whether a directory of a process is on a local file system, as far as the process's mount table tells.
// statfs would tell too, by asking the file system. An overlay is believed: one over FUSE, with the latter detached, is
// not seen here, but takes a container that was given /dev/fuse.
func onLocal(proc, dir int) bool {
	var st unix.Statx_t
	err := unix.Statx(dir, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_MNT_ID, &st)
	if err != nil || st.Mask&unix.STATX_MNT_ID == 0 {
		return false
	}
	fd, err := unix.Openat(proc, "mountinfo", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	f := os.NewFile(uintptr(fd), "mountinfo")
	defer func() { _ = f.Close() }()
	fs, err := mountType(io.LimitReader(f, maxMounts), st.Mnt_id)
	return err == nil && slices.Contains(local, fs)
}

// mountType finds the file system of a mount in a table as /proc/PID/mountinfo has it. The kernel escapes the spaces of
// paths, so the first lone dash ends the fields that vary.
func mountType(table io.Reader, id uint64) (string, error) {
	prefix := strconv.AppendUint(nil, id, 10)
	prefix = append(prefix, ' ')
	lines := bufio.NewScanner(table)
	for lines.Scan() {
		if !bytes.HasPrefix(lines.Bytes(), prefix) {
			continue
		}
		_, rest, _ := bytes.Cut(lines.Bytes(), []byte(" - "))
		fs, _, ok := bytes.Cut(rest, []byte(" "))
		if !ok {
			return "", fmt.Errorf("read mount %d: no file system", id)
		}
		return string(fs), nil
	}
	if err := lines.Err(); err != nil {
		return "", fmt.Errorf("read the mounts: %w", err)
	}
	return "", fmt.Errorf("read the mounts: no mount %d", id)
}
