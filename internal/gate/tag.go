// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// tag is the comment of a rule: which gate of which process it is of. It reads
// whittle-gate-PIDNS-PID-START-N, of characters that no rule language needs quotes for.
type tag struct {
	pidns uint64 // inode; pids mean something in one pid namespace only
	pid   int
	start uint64 // in ticks since the machine started: pids are used again
	n     uint64
}

const tagPrefix = "whittle-gate"

var gates atomic.Uint64

func newTag() (tag, error) {
	ns, err := pidNamespace()
	if err != nil {
		return tag{}, err
	}
	start, _, err := startOf(os.Getpid())
	if err != nil {
		return tag{}, err
	}
	return tag{pidns: ns, pid: os.Getpid(), start: start, n: gates.Add(1)}, nil
}

func (t tag) String() string {
	return fmt.Sprintf("%s-%d-%d-%d-%d", tagPrefix, t.pidns, t.pid, t.start, t.n)
}

func (t tag) is(other tag) bool { return t == other }

func parseTag(s string) (tag, bool) {
	rest, ok := strings.CutPrefix(s, tagPrefix+"-")
	fields := strings.Split(rest, "-")
	if !ok || len(fields) != 4 {
		return tag{}, false
	}
	var numbers [4]uint64
	for i, f := range fields {
		var err error
		if numbers[i], err = strconv.ParseUint(f, 10, 64); err != nil {
			return tag{}, false
		}
	}
	t := tag{pidns: numbers[0], pid: int(numbers[1]), start: numbers[2], n: numbers[3]}
	return t, t.String() == s // as we write it, or it is not ours
}

// dead tells whether the tag's process has ended for certain.
func (t tag) dead() bool {
	ns, err := pidNamespace()
	if err != nil || ns != t.pidns {
		return false
	}
	start, zombie, err := startOf(t.pid)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		return true
	}
	return err == nil && (start != t.start || zombie)
}

func pidNamespace() (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/pid", &st); err != nil {
		return 0, fmt.Errorf("reading the own pid namespace: %w", err)
	}
	return st.Ino, nil
}

// startOf a process, from /proc/PID/stat. A zombie has given up its queue.
func startOf(pid int) (start uint64, zombie bool, err error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, false, fmt.Errorf("reading when a process started: %w", err)
	}
	// The second field is the name in brackets, which may itself hold brackets and blanks.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 20 {
		return 0, false, fmt.Errorf("reading when process %d started: its stat has %d fields after the name", pid, len(fields))
	}
	start, err = strconv.ParseUint(fields[19], 10, 64)
	if err != nil {
		return 0, false, fmt.Errorf("reading when process %d started: %w", pid, err)
	}
	return start, fields[0] == "Z" || fields[0] == "X", nil
}
