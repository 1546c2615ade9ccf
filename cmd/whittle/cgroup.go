// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/whittle-sec/whittle/internal/hint"
	"golang.org/x/sys/unix"
)

// cgroup of one run.
type cgroup struct {
	dir    string
	id     uint64   // its inode, as the kernel's BPF helpers tell it
	file   *os.File // the directory
	events *os.File // cgroup.events
}

// newCgroup below the cgroup2 mount: at /sys/fs/cgroup, or at /sys/fs/cgroup/unified on hybrid hosts.
func newCgroup() (*cgroup, error) {
	mount, err := cgroupMount()
	if err != nil {
		return nil, err
	}
	g := &cgroup{dir: filepath.Join(mount, fmt.Sprintf("whittle-run-%d", os.Getpid()))}
	// One that a killed whittle with this pid left behind can be removed if it is empty.
	if err := os.Remove(g.dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove an old cgroup: %w", err)
	}
	if err := os.Mkdir(g.dir, 0o755); err != nil {
		return nil, hint.Add(fmt.Errorf("make a cgroup: %w", err), "cgroup v2 must be writable; in a container, run it with --privileged")
	}
	var st unix.Stat_t
	if err := unix.Stat(g.dir, &st); err != nil {
		g.remove()
		return nil, fmt.Errorf("look at the cgroup: %w", err)
	}
	g.id = st.Ino
	if g.file, err = os.Open(g.dir); err == nil {
		g.events, err = os.Open(filepath.Join(g.dir, "cgroup.events"))
	}
	if err != nil {
		g.remove()
		return nil, fmt.Errorf("open the cgroup: %w", err)
	}
	return g, nil
}

func cgroupMount() (string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", fmt.Errorf("look for the cgroup2 mount: %w", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if mount, ok := cgroupMountOf(lines.Text()); ok {
			return mount, nil
		}
	}
	if err := lines.Err(); err != nil {
		return "", fmt.Errorf("look for the cgroup2 mount: %w", err)
	}
	return "", hint.Add(errors.New("no cgroup2 file system is mounted"),
		"mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 none /sys/fs/cgroup/unified")
}

// cgroupMountOf a line of mountinfo: ID PARENT MAJ:MIN ROOT MOUNTPOINT OPTIONS [TAGS…] - TYPE SOURCE SUPEROPTIONS.
func cgroupMountOf(line string) (string, bool) {
	before, after, ok := strings.Cut(line, " - ")
	fields := strings.Fields(before)
	if !ok || len(fields) < 5 || !strings.HasPrefix(after, "cgroup2 ") {
		return "", false
	}
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(fields[4]), true
}

// populated tells whether a process is left.
func (g *cgroup) populated() (bool, error) {
	buf := make([]byte, 256)
	n, err := g.events.ReadAt(buf, 0)
	if n == 0 && err != nil {
		return false, fmt.Errorf("read cgroup.events: %w", err)
	}
	return strings.Contains(string(buf[:n]), "populated 1"), nil
}

// waitEmpty until no process is left or the time is over.
func (g *cgroup) waitEmpty(most time.Duration) (empty bool, err error) {
	end := time.Now().Add(most)
	for {
		full, err := g.populated()
		left := time.Until(end)
		if err != nil || !full || left <= 0 {
			return !full, err
		}
		// The kernel wakes pollers when populated changes.
		p := []unix.PollFd{{Fd: int32(g.events.Fd()), Events: unix.POLLPRI}}
		if _, err := unix.Poll(p, int(left.Milliseconds())+1); err != nil && !errors.Is(err, unix.EINTR) {
			return false, fmt.Errorf("wait for the cgroup: %w", err)
		}
	}
}

// pids in the group.
func (g *cgroup) pids() (pids []int) {
	text, err := os.ReadFile(filepath.Join(g.dir, "cgroup.procs"))
	if err != nil {
		return nil
	}
	for field := range strings.FieldsSeq(string(text)) {
		if pid, err := strconv.Atoi(field); err == nil && pid > 0 {
			pids = append(pids, pid)
		}
	}
	return pids
}

// kill everything in the group: atomically since Linux 5.14, in rounds before.
func (g *cgroup) kill() {
	if os.WriteFile(filepath.Join(g.dir, "cgroup.kill"), []byte("1"), 0) == nil {
		return
	}
	for range 100 {
		pids := g.pids()
		if len(pids) == 0 {
			return
		}
		for _, pid := range pids {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		if empty, err := g.waitEmpty(20 * time.Millisecond); empty || err != nil {
			return
		}
	}
}

// remove the group, and what is left in it.
func (g *cgroup) remove() {
	if g.events != nil {
		if full, err := g.populated(); err == nil && full {
			g.kill()
			_, _ = g.waitEmpty(2 * time.Second)
		}
		g.events.Close()
	}
	if g.file != nil {
		g.file.Close()
	}
	// A group that cannot be removed has processes that nobody can kill (in D state); it is empty soon.
	_ = os.Remove(g.dir)
}
