// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/internal/workload"
)

// birthTime is how long a birth lasts at most. Its end, the first wait, shows only at sys_enter, which is not attached for a
// container that is followed; a worker drops its privileges within milliseconds, on a loaded host within a second or two.
const birthTime = 5 * time.Second

// Who a task of a container is.
type Who struct {
	Lane  observe.Lane
	Role  observe.Role // Exe is empty when the executable has no known name
	Birth bool
}

// Who a thread is. ok is false when the programs have not seen its fork or exec, or the thread is gone. What it says
// counts only if the thread is the same before and after: a held call that is still valid proves that.
func (o *Observer) Who(id ID, tid int) (who Who, ok bool) {
	at, known := o.places.get(id)
	if !known {
		return Who{}, false
	}
	t, own, err := o.task(tid)
	if err != nil || t.Uid != uint32(id) {
		return Who{}, false
	}
	who = Who{Lane: observe.Lane(t.Lane), Role: observe.Role{Generation: t.Generation}}
	switch {
	case !own:
		who.Birth = threadAge(tid) < birthTime
	case t.Birth != 0 && t.Born != 0:
		who.Birth = bootTime()-time.Duration(t.Born) < birthTime
	}
	who.Role.Exe = o.exeName(at, id, exeKey{t.Ino, uint64(t.Dev)})
	return who, true
}

// task is the programs' state of a thread, or that of its process's leader where the kernel gives no pidfd of other
// threads (before 6.9): lane and role are the same, the birth is not the thread's own.
func (o *Observer) task(tid int) (t bpfTaskState, own bool, err error) {
	fd, err := unix.PidfdOpen(tid, unix.PIDFD_THREAD)
	own = err == nil
	if errors.Is(err, unix.EINVAL) {
		fd, err = unix.PidfdOpen(tid, 0)
		own = err == nil
	}
	if err != nil && !errors.Is(err, unix.ESRCH) {
		var tgid int
		if tgid, err = leaderOf(tid); err != nil {
			return t, false, err
		}
		fd, err = unix.PidfdOpen(tgid, 0)
	}
	if err != nil {
		return t, false, fmt.Errorf("open thread %d: %w", tid, err)
	}
	defer unix.Close(fd)
	if err := o.objects.Tasks.Lookup(int32(fd), &t); err != nil {
		return t, false, fmt.Errorf("look up thread %d: %w", tid, err)
	}
	return t, own, nil
}

// exeName is the name by which the executable was executed first, as traces have it.
func (o *Observer) exeName(at place, id ID, key exeKey) string {
	if path, ok := at.roles.Load(key); ok {
		return path.(string)
	}
	var r bpfRole
	if err := o.objects.Roles.Lookup(bpfRoleKey{Ino: key[0], Dev: uint32(key[1]), Uid: uint32(id)}, &r); err != nil {
		return ""
	}
	path := workload.Printable(cString(r.Path[:]), 120)
	at.roles.Store(key, path)
	return path
}

func leaderOf(tid int) (int, error) {
	status, err := os.ReadFile("/proc/" + strconv.Itoa(tid) + "/status")
	if err != nil {
		return 0, fmt.Errorf("find the process of thread %d: %w", tid, err)
	}
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, "Tgid:"); ok {
			return strconv.Atoi(strings.TrimSpace(value))
		}
	}
	return 0, fmt.Errorf("find the process of thread %d: no Tgid line", tid)
}

// threadAge by /proc; of a thread that cannot be read it is more than any birth takes.
func threadAge(tid int) time.Duration {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(tid) + "/stat")
	if err != nil {
		return birthTime
	}
	// The name, in brackets, may hold anything; the 22nd field is the start, in 1/100 s since boot (proc_pid_stat(5)).
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 20 {
		return birthTime
	}
	ticks, err := strconv.ParseInt(fields[19], 10, 64)
	if err != nil {
		return birthTime
	}
	return bootTime() - time.Duration(ticks)*(time.Second/100)
}
