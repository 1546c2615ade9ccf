// SPDX-License-Identifier: Apache-2.0

package renew

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/engine/process"
	"github.com/whittle-sec/whittle/internal/traffic"
	"github.com/whittle-sec/whittle/internal/workload"
	"golang.org/x/sys/unix"
)

// maxProcesses of a container that are looked at, and maxGroups below its cgroup: a fork bomb is not waited for.
const maxProcesses, maxGroups = 1 << 14, 1 << 10

// processes of a container: those of its cgroup, or where it has none of its own (rootless engines) the descendants of its
// first one. Those that end meanwhile do no harm: what is read of them is checked where it is used.
func processes(c engine.Container) []int {
	if c.PID <= 0 {
		return nil
	}
	if c.CgroupID > 1 {
		if pids := inGroup(groupOf(c.PID)); len(pids) > 0 {
			return pids
		}
	}
	return descendants(c.PID)
}

// groupOf a process: the directory of its cgroup, or "".
func groupOf(pid int) string {
	p, err := process.Open(pid)
	if err != nil {
		return ""
	}
	defer p.Close()
	dir, err := p.CgroupDir()
	if err != nil {
		return ""
	}
	return dir
}

// inGroup are the processes of a cgroup and of those below it; none of one that is gone, or "".
func inGroup(dir string) (pids []int) {
	if dir == "" {
		return nil
	}
	groups := 0
	_ = filepath.WalkDir(dir, func(name string, entry fs.DirEntry, err error) error { // groups end while they are walked
		if err != nil || !entry.IsDir() {
			return nil
		}
		if groups++; groups > maxGroups || len(pids) > maxProcesses {
			return filepath.SkipAll
		}
		pids = append(pids, numbers(filepath.Join(name, "cgroup.procs"))...)
		return nil
	})
	return pids
}

// descendants by the kernel's lists of children (CONFIG_PROC_CHILDREN, which CRIU needs and every distribution has).
func descendants(pid int) []int {
	all := []int{pid}
	for i := 0; i < len(all) && len(all) < maxProcesses; i++ {
		tasks, err := os.ReadDir("/proc/" + strconv.Itoa(all[i]) + "/task")
		if err != nil {
			continue
		}
		for _, task := range tasks {
			all = append(all, numbers("/proc/"+strconv.Itoa(all[i])+"/task/"+task.Name()+"/children")...)
		}
	}
	return all
}

// numbers in a file of /proc or of a cgroup; none when it is gone.
func numbers(name string) (all []int) {
	file, err := os.Open(name)
	if err != nil {
		return nil
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, 1<<20))
	if err != nil {
		return nil
	}
	for word := range bytes.FieldsSeq(text) {
		if n, err := strconv.Atoi(string(word)); err == nil && n > 0 {
			all = append(all, n)
		}
	}
	return all
}

// Sharer is a process that is in a running container's own network and not in the container; "" if there is none, or none that
// can be told. It is left without a network when the container is stopped.
func Sharer(b engine.Blueprint) string {
	if b.NetworkKept || b.CgroupID <= 1 || b.PID <= 0 { // without a cgroup of its own its processes cannot be told from others
		return ""
	}
	ns, err := traffic.OpenNetNS(b.PID)
	if err != nil {
		return ""
	}
	defer ns.Close()
	return sharer(ns.ID(), processes(b.Container))
}

// sharer is a process, other than these, in a network namespace; "" if there is none.
func sharer(netns uint64, own []int) string {
	dir, err := os.Open("/proc")
	if err != nil {
		return ""
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return ""
	}
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil || slices.Contains(own, pid) {
			continue
		}
		var st unix.Stat_t
		if unix.Stat("/proc/"+name+"/ns/net", &st) != nil || st.Ino != netns {
			continue
		}
		comm, err := os.ReadFile("/proc/" + name + "/comm")
		if err != nil {
			continue // it has ended
		}
		return fmt.Sprintf("%s (process %d)", workload.Printable(strings.TrimSpace(string(comm)), 32), pid)
	}
	return ""
}
