// SPDX-License-Identifier: Apache-2.0

package testbed

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Proc is a process that outlives the one which started it. Its start time tells it from a later process with its pid.
type Proc struct {
	PID     int    `json:"pid"`
	Started string `json:"started"` // in clock ticks since boot
}

func procOf(pid int) (Proc, error) {
	stat, err := readStat(pid)
	if err != nil {
		return Proc{}, err
	}
	return Proc{PID: pid, Started: stat.started}, nil
}

func (p Proc) alive() bool {
	stat, err := readStat(p.PID)
	return err == nil && stat.started == p.Started && stat.state != "Z"
}

// kill it if it is still the one.
func (p Proc) kill() error {
	if p.PID <= 1 {
		return nil
	}
	fd, err := unix.PidfdOpen(p.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("kill %d: %w", p.PID, err)
	}
	defer unix.Close(fd)
	if !p.alive() {
		return nil
	}
	err = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill %d: %w", p.PID, err)
	}
	return nil
}

type procStat struct {
	state, started string
	parent         int
}

func readStat(pid int) (procStat, error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return procStat{}, err
	}
	// pid (comm) state ppid … ; comm may hold anything, parentheses too (proc_pid_stat(5)).
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	if len(fields) < 20 {
		return procStat{}, fmt.Errorf("process %d: short stat", pid)
	}
	parent, err := strconv.Atoi(fields[1])
	return procStat{state: fields[0], parent: parent, started: fields[19]}, err
}

// tree finds the processes in the mount namespace of p and all their descendants: containers have namespaces of their
// own.
func (p Proc) tree() ([]Proc, error) {
	inode := func(pid int) string {
		link, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/ns/mnt")
		if err != nil {
			return ""
		}
		return link
	}
	ns := inode(p.PID)
	// A holder that is gone takes its namespace's name with it. Ours must never be taken for it.
	if ns == "" || !p.alive() || ns == inode(os.Getpid()) || ns == inode(1) {
		return nil, nil
	}
	names, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	stats, in := make(map[int]procStat), make(map[int]bool)
	for _, name := range names {
		pid, err := strconv.Atoi(filepath.Base(name))
		if err != nil {
			continue
		}
		stat, err := readStat(pid)
		if err != nil {
			continue // gone meanwhile
		}
		stats[pid] = stat
		in[pid] = inode(pid) == ns
	}
	for grew := true; grew; {
		grew = false
		for pid, stat := range stats {
			if !in[pid] && in[stat.parent] {
				in[pid], grew = true, true
			}
		}
	}
	var out []Proc
	for pid, yes := range in {
		if yes {
			out = append(out, Proc{PID: pid, Started: stats[pid].started})
		}
	}
	return out, nil
}
