// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/syscalls"
)

// probed are calls for which somebody who has taken over a service has use, with arguments that the kernel itself would
// turn down: its answer then says that nobody was in the way, and nothing happens.
var probed = []struct {
	call   string
	args   [6]uint64
	kernel unix.Errno // what it says when the call gets through
}{
	{"execve", [6]uint64{0, 0, 0}, unix.EFAULT},
	{"bind", [6]uint64{^uint64(0)}, unix.EBADF},
	{"listen", [6]uint64{^uint64(0)}, unix.EBADF},
	{"setuid", [6]uint64{^uint64(0)}, unix.EINVAL},
	{"setgid", [6]uint64{^uint64(0)}, unix.EINVAL},
	{"setgroups", [6]uint64{1 << 20}, unix.EINVAL},
	{"chown", [6]uint64{0}, unix.EFAULT},
	{"ptrace", [6]uint64{99, ^uint64(0) >> 33}, unix.ESRCH},
}

// mustLose are those that every service must have lost once it serves.
var mustLose = map[string]bool{"execve": true, "bind": true, "setuid": true, "listen": true, "setgid": true, "setgroups": true}

// reached says, of each probed call, whether it came through to the kernel in a process.
func reached(pid int) (through map[string]bool, err error) {
	through = map[string]bool{}
	for _, p := range probed {
		nr, ok := syscalls.Number(native(), p.call)
		if !ok {
			continue
		}
		result, err := callIn(pid, nr, p.args, "")
		if err != nil {
			return nil, fmt.Errorf("have process %d call %s: %w", pid, p.call, err)
		}
		switch errno := unix.Errno(-result); errno {
		case p.kernel:
			through[p.call] = true
		case unix.EPERM, unix.ENOSYS:
			through[p.call] = false
		default:
			return nil, fmt.Errorf("%s in process %d gave %d, which nobody expected", p.call, pid, result)
		}
	}
	return through, nil
}

// target is a process that is probed.
type target struct {
	name string
	pid  int
}

// probe processes that serve under enforcement, and print a table: a line for each call, and in it what comes of the call
// without Whittle, and in each of the processes.
func (d *demo) probe(targets []target) error {
	all := []map[string]bool{d.before}
	for _, t := range targets {
		through, err := reached(t.pid)
		if err != nil {
			return err
		}
		all = append(all, through)
		for call := range mustLose {
			if through[call] {
				return fmt.Errorf("%s can still call %s", t.name, call)
			}
		}
	}
	w := tabwriter.NewWriter(d.out, 0, 8, 2, ' ', 0)
	fmt.Fprint(w, "CALL\tWITHOUT WHITTLE")
	for _, t := range targets {
		fmt.Fprintf(w, "\t%s", strings.ToUpper(t.name))
	}
	fmt.Fprintln(w)
	for _, p := range probed {
		fmt.Fprint(w, p.call)
		for _, through := range all {
			answer := "refused"
			if through[p.call] {
				answer = "passes"
			}
			fmt.Fprintf(w, "\t%s", answer)
		}
		fmt.Fprintln(w)
	}
	return w.Flush()
}

// pidOf a container's first process.
func (d *demo) pidOf(ctx context.Context, name string) (int, error) {
	text, err := d.env.Run(ctx, "inspect", "--format", "{{.State.Pid}}", name)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(text)
}

// childOf a process whose command line has this in it.
func childOf(parent int, with string) (int, error) {
	all, err := childrenOf(parent, with)
	if err == nil && len(all) == 0 {
		err = errors.New("process " + strconv.Itoa(parent) + " has no child like " + with)
	}
	if err != nil {
		return 0, err
	}
	return all[0], nil
}

func childrenOf(parent int, with string) (all []int, err error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	for _, name := range stats {
		stat, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended
		}
		// The name, in brackets, may hold anything; the state and the parent follow.
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		if len(fields) < 2 || fields[1] != strconv.Itoa(parent) {
			continue
		}
		line, err := os.ReadFile(filepath.Join(filepath.Dir(name), "cmdline"))
		if err != nil || !strings.Contains(string(line), with) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(name)))
		if err != nil {
			return nil, err
		}
		all = append(all, pid)
	}
	return all, nil
}
