// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

// stat is what we read of /proc/PID/stat (proc_pid_stat(5)).
type stat struct {
	comm   string
	parent int    // field 4
	flags  uint64 // field 9
	start  uint64 // field 22, in clock ticks since boot
}

const (
	fieldState  = 3 // the first after the name
	fieldParent = 4
	fieldFlags  = 9
	fieldStart  = 22
)

// Process is what the kernel says of a process, or of a thread, in one line.
type Process struct {
	Parent int
	Start  uint64 // in clock ticks since boot; with the pid it names the process for good
	Comm   string // as it calls itself
}

// ReadProcess by its id.
func ReadProcess(pid int) (Process, error) {
	dir, err := openProc(pid)
	if err != nil {
		return Process{}, fmt.Errorf("read process %d: %w", pid, err)
	}
	defer func() { _ = unix.Close(dir) }()
	line, err := readAt(dir, "stat")
	if err != nil {
		return Process{}, fmt.Errorf("read process %d: %w", pid, err)
	}
	s, err := parseStat(line)
	if err != nil {
		return Process{}, fmt.Errorf("read process %d: %w", pid, err)
	}
	return Process{s.parent, s.start, s.comm}, nil
}

// parseStat reads a line of /proc/PID/stat. The program chooses its name, which may hold parentheses, spaces and
// newlines; no later field can hold a parenthesis, so the last one ends the name.
func parseStat(line []byte) (s stat, err error) {
	open, end := bytes.IndexByte(line, '('), bytes.LastIndexByte(line, ')')
	if open < 0 || end < open {
		return stat{}, errors.New("parse stat: no name in parentheses")
	}
	s.comm = string(line[open+1 : end])
	fields := bytes.Fields(line[end+1:])
	if len(fields) <= fieldStart-fieldState {
		return stat{}, fmt.Errorf("parse stat: %d fields after the name", len(fields))
	}
	if s.parent, err = strconv.Atoi(string(fields[fieldParent-fieldState])); err != nil {
		return stat{}, fmt.Errorf("parse stat: parent: %w", err)
	}
	if s.flags, err = strconv.ParseUint(string(fields[fieldFlags-fieldState]), 10, 64); err != nil {
		return stat{}, fmt.Errorf("parse stat: flags: %w", err)
	}
	if s.start, err = strconv.ParseUint(string(fields[fieldStart-fieldState]), 10, 64); err != nil {
		return stat{}, fmt.Errorf("parse stat: start time: %w", err)
	}
	return s, nil
}

// parseTGID finds the thread group in /proc/TID/status. The name is its first line, with newlines escaped by the kernel
// (proc_task_name), so no program can write a line of its own there.
func parseTGID(status []byte) (int, error) {
	for line := range bytes.Lines(status) {
		value, ok := bytes.CutPrefix(line, []byte("Tgid:"))
		if !ok {
			continue
		}
		tgid, err := strconv.ParseUint(string(bytes.TrimSpace(value)), 10, 31)
		if err != nil {
			return 0, fmt.Errorf("parse status: thread group: %w", err)
		}
		if tgid == 0 {
			break // not visible in this pid namespace
		}
		return int(tgid), nil
	}
	return 0, errors.New("parse status: no thread group")
}
