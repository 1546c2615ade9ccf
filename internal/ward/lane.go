// SPDX-License-Identifier: Apache-2.0

package ward

import (
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/internal/supervise"
)

// laneOf a process that the kernel programs know nothing of, as laneOf has it. A call is held before they see it, and the first that
// a runtime makes under its filter may be one that is held: runc's threads wake each other, crun waits for the process that has
// handed the listener over. The container's first process is the runtime's until it has executed something; where the
// filter came later, it may be any program that was forked.
func (w *Ward) laneOf(t supervise.Task) observe.Lane {
	if w.started && t.Forked && t.TGID == w.init {
		return observe.LaneRuntime
	}
	return laneOf(t, w.init)
}

// laneOf a process that the kernel programs did not see being made: it was there before the agent, or it is the runtime's,
// which has executed nothing in the container yet.
//
// The runtime forks the process that becomes an exec's, and that one is held while it prepares itself: it has not exec'd
// since its fork, and its parent is outside the container's pid namespace. Nothing inside can make itself look so: a pid
// namespace cannot be left upwards, so what a program of the container forks has its parent inside or below. In a
// container with the host's pid namespace the runtime cannot be told apart, and is taken for an exec.
func laneOf(t supervise.Task, init int) observe.Lane {
	if t.Forked && t.TGID != init {
		parent, err := parentOf(t.TGID)
		if err == nil && samePIDs(t.TGID, init) && !samePIDs(parent, init) {
			return observe.LaneRuntime
		}
	}
	if descends(t.TGID, init) {
		return observe.LaneService
	}
	return observe.LaneExec
}

// samePIDs tells whether two processes are in one pid namespace. What cannot be read is: the stricter lanes follow.
func samePIDs(a, b int) bool {
	x, errX := pidNS(a)
	y, errY := pidNS(b)
	return errX != nil || errY != nil || x == y
}

func pidNS(pid int) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat("/proc/"+strconv.Itoa(pid)+"/ns/pid", &st); err != nil {
		return 0, fmt.Errorf("read the pid namespace of process %d: %w", pid, err)
	}
	return st.Ino, nil
}

// descends tells whether a process is the container's first one or comes from it; what an exec brought does not.
func descends(pid, init int) bool {
	for range 64 {
		if pid == init {
			return true
		}
		if pid <= 1 {
			return false
		}
		var err error
		if pid, err = parentOf(pid); err != nil {
			return false
		}
	}
	return false
}

func parentOf(pid int) (int, error) {
	p, err := supervise.ReadProcess(pid)
	return p.Parent, err
}
