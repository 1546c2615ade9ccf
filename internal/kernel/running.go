// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// What /proc and the cgroup file system tell of a container that was running before it was added.

// maxBelow bounds how many cgroups or processes of one container are looked at.
const maxBelow = 4096

// cgroupDir is where a process's cgroup v2 directory is, if it is the one with the given id.
func cgroupDir(pid int, id uint64) (string, bool) {
	group, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return "", false
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", false
	}
	for line := range bytes.Lines(group) {
		path, ok := strings.CutPrefix(strings.TrimSpace(string(line)), "0::")
		if !ok {
			continue
		}
		for mount := range bytes.Lines(mounts) {
			fields := strings.Fields(string(mount))
			if len(fields) < 9 || !strings.Contains(string(mount), " - cgroup2 ") {
				continue
			}
			dir := filepath.Join(fields[4], path)
			var st unix.Stat_t
			if unix.Stat(dir, &st) == nil && st.Ino == id {
				return dir, true
			}
		}
	}
	return "", false
}

// cgroupsBelow are the ids of the cgroups below the container's own.
func cgroupsBelow(pid int, id uint64) (ids []uint64) {
	root, ok := cgroupDir(pid, id)
	if !ok {
		return nil
	}
	filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() || path == root {
			return nil // it may vanish while we walk
		}
		var st unix.Stat_t
		if unix.Stat(path, &st) == nil {
			ids = append(ids, st.Ino)
		}
		if len(ids) == maxBelow {
			return filepath.SkipAll
		}
		return nil
	})
	return ids
}

// nameRunning finds the names of the executables that run in the container now: no exec will tell them.
func (c *container) nameRunning() {
	dir, ok := cgroupDir(c.target.InitPID, c.target.CgroupID)
	pids := []string{strconv.Itoa(c.target.InitPID)}
	if ok {
		if list, err := os.ReadFile(filepath.Join(dir, "cgroup.procs")); err == nil {
			pids = strings.Fields(string(list))
		}
	}
	for _, pid := range pids[:min(len(pids), maxBelow)] {
		var st unix.Stat_t
		exe := "/proc/" + pid + "/exe"
		path, err := os.Readlink(exe)
		if err != nil || unix.Stat(exe, &st) != nil {
			continue
		}
		if n, err := strconv.Atoi(pid); err == nil && c.target.NameOf != nil {
			if name := c.target.NameOf(n); name != "" {
				path = name
			}
		}
		dev := uint64(unix.Major(st.Dev))<<20 | uint64(unix.Minor(st.Dev)) // as the kernel has it
		c.roles[[2]uint64{st.Ino, dev}] = path
	}
}
