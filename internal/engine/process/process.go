// SPDX-License-Identifier: Apache-2.0

// Package process finds what the kernel knows a container's process by: its cgroup v2 id and its mount namespace. It
// holds a pidfd meanwhile, so that a pid which was given to another process is noticed. It knows nothing of engines.
package process

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrGone is returned, wrapped, when the process has exited; what was read before may be another's.
var ErrGone = errors.New("the process has exited")

// Process is a process that was alive when it was opened.
type Process struct {
	PID int
	fd  int
}

// Open takes a pidfd. What is read of the process counts only if Alive returns nil afterwards.
func Open(pid int) (*Process, error) {
	if pid <= 0 {
		return nil, fmt.Errorf("open process: %d is not a pid", pid)
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil, fmt.Errorf("open process %d: %w", pid, ErrGone)
	}
	if err != nil {
		return nil, fmt.Errorf("open process %d: %w", pid, err)
	}
	return &Process{PID: pid, fd: fd}, nil
}

// Close gives the pidfd back.
func (p *Process) Close() error { return unix.Close(p.fd) }

// Alive returns nil while the process has not exited. A zombie has: its pidfd is readable (Linux 5.3).
func (p *Process) Alive() error {
	for {
		polled := []unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLIN}}
		n, err := unix.Poll(polled, 0)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return fmt.Errorf("poll process %d: %w", p.PID, err)
		case n > 0:
			return fmt.Errorf("process %d: %w", p.PID, ErrGone)
		}
		return nil
	}
}

// MountNS is the inode of the process's mount namespace.
func (p *Process) MountNS() (uint64, error) {
	return inode(p.proc("ns/mnt"))
}

// Owner is the user who made the user namespace that the process's mount namespace belongs to: 0 unless it is a rootless
// container's (or that of whatever else a user may start in namespaces of its own).
func (p *Process) Owner() (uint32, error) {
	mnt, err := os.Open(p.proc("ns/mnt"))
	if err != nil {
		return 0, fmt.Errorf("open the mount namespace of process %d: %w", p.PID, err)
	}
	defer mnt.Close()
	user, err := unix.IoctlRetInt(int(mnt.Fd()), unix.NS_GET_USERNS)
	if err != nil {
		return 0, fmt.Errorf("ask for the user namespace of process %d: %w", p.PID, err)
	}
	defer unix.Close(user)
	uid, err := unix.IoctlGetUint32(user, unix.NS_GET_OWNER_UID)
	if err != nil {
		return 0, fmt.Errorf("ask for the owner of process %d's user namespace: %w", p.PID, err)
	}
	return uid, nil
}

// Cgroup is the path of the process's cgroup in the v2 hierarchy, as this process's cgroup namespace shows it.
func (p *Process) Cgroup() (string, error) {
	data, err := os.ReadFile(p.proc("cgroup"))
	if errors.Is(err, unix.ESRCH) { // it was reaped between open and read
		return "", fmt.Errorf("read cgroup of process %d: %w", p.PID, ErrGone)
	}
	if err != nil {
		return "", fmt.Errorf("read cgroup of process %d: %w", p.PID, err)
	}
	return parseCgroup(string(data))
}

// CgroupID is the inode of the process's cgroup v2 directory, which is what bpf_get_current_cgroup_id returns (the two
// are the same since Linux 5.5). It is 1 for the root cgroup, and 0 where no cgroup2 file system is mounted.
func (p *Process) CgroupID() (uint64, error) {
	dir, err := p.CgroupDir()
	if err != nil || dir == "" {
		return 0, err
	}
	return inode(dir)
}

// CgroupDir is the process's cgroup v2 directory; "" where no cgroup2 file system shows it.
func (p *Process) CgroupDir() (string, error) {
	cgroup, err := p.Cgroup()
	if err != nil {
		return "", err
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", fmt.Errorf("look for the cgroup2 mount: %w", err)
	}
	dir, _ := cgroupDir(string(mounts), cgroup)
	return dir, nil
}

func (p *Process) proc(name string) string { return "/proc/" + strconv.Itoa(p.PID) + "/" + name }

func inode(name string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat(name, &st); err != nil {
		return 0, fmt.Errorf("stat %s: %w", name, err)
	}
	return st.Ino, nil
}

// parseCgroup takes the v2 line ("0::/path") out of a /proc/PID/cgroup file. Hybrid hosts have it among v1 lines.
func parseCgroup(file string) (string, error) {
	for line := range strings.Lines(file) {
		cgroup, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::")
		if !ok {
			continue
		}
		// A removed cgroup is shown with this suffix; nothing starts in one.
		if strings.HasSuffix(cgroup, " (deleted)") {
			return "", fmt.Errorf("cgroup %q was removed: %w", cgroup, ErrGone)
		}
		if path.Clean(cgroup) != cgroup || !path.IsAbs(cgroup) || strings.HasPrefix(cgroup, "/..") {
			return "", fmt.Errorf("cgroup %q is outside of this cgroup namespace", cgroup)
		}
		return cgroup, nil
	}
	return "", errors.New("no cgroup v2 line: the kernel has no unified hierarchy")
}

// cgroupDir finds the directory of a cgroup under the first cgroup2 mount that shows it. The mount is at /sys/fs/cgroup, or
// at /sys/fs/cgroup/unified on hybrid hosts, and in a container its root may be a cgroup below the real one.
func cgroupDir(mountinfo, cgroup string) (string, bool) {
	for line := range strings.Lines(mountinfo) {
		// ID PARENT MAJ:MIN ROOT MOUNTPOINT OPTIONS [TAGS…] - TYPE SOURCE SUPEROPTIONS (proc(5))
		before, after, ok := strings.Cut(line, " - ")
		fields := strings.Fields(before)
		if !ok || len(fields) < 5 || !strings.HasPrefix(after, "cgroup2 ") {
			continue
		}
		root, point := unescape(fields[3]), unescape(fields[4])
		if root == "/" {
			return path.Join(point, cgroup), true
		}
		if below, ok := strings.CutPrefix(cgroup, root); ok && (below == "" || below[0] == '/') {
			return path.Join(point, below), true
		}
	}
	return "", false
}

// unescape turns mountinfo's \040 and the like into the bytes they stand for.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
