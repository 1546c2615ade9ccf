// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Task is what /proc says of the process of a held thread, when BPF did not follow it. All of it may be another process's
// unless the call is still valid after Lookup: see Held.Valid.
type Task struct {
	TGID  int
	Start uint64        // of the process, in clock ticks since boot; with TGID it names the process for good
	Age   time.Duration // since the fork that made the process, to a hundredth of a second. An exec does not change it
	// Forked: the process has not exec'd since it was forked, so it runs its parent's program.
	Forked bool
	// Exe is how the kernel writes the path of the running executable, cut at maxExe. The container chose that name, and
	// a deleted file has " (deleted)" behind it: for a display. SameFile compares.
	Exe            string
	ExeDev, ExeIno uint64
	Comm           string
}

const (
	// PF_FORKNOEXEC of include/linux/sched.h. An exec clears it, whichever thread called it.
	forkedNoExec = 0x40
	// USER_HZ, which is the unit of /proc, is 100 on the architectures that Whittle knows.
	tick = time.Second / 100
	// A status is 1.5 KB, and its only lists (groups, cpus) come behind the thread group.
	maxProcFile = 4096
	maxExe      = 1024
)

// Lookup reads /proc about the process of a thread. It never waits for anything that a container serves, such as a
// FUSE file system.
func Lookup(tid int) (Task, error) {
	tgid, err := threadGroup(tid)
	if err != nil {
		return Task{}, fmt.Errorf("look up thread %d: %w", tid, err)
	}
	task, err := lookupProcess(tgid)
	if err != nil {
		return Task{}, fmt.Errorf("look up process %d: %w", tgid, err)
	}
	return task, nil
}

// threadGroup of a thread. A descriptor without PIDFD_THREAD is given for leaders only, which most callers are; asking
// costs a tenth of what reading status does.
func threadGroup(tid int) (int, error) {
	if fd, err := unix.PidfdOpen(tid, 0); err == nil {
		return tid, unix.Close(fd)
	}
	dir, err := openProc(tid)
	if err != nil {
		return 0, err
	}
	defer func() { _ = unix.Close(dir) }()
	status, err := readAt(dir, "status")
	if err != nil {
		return 0, err
	}
	return parseTGID(status)
}

// lookupProcess reads through one descriptor of the process's directory, which never becomes another process's.
func lookupProcess(tgid int) (Task, error) {
	dir, err := openProc(tgid)
	if err != nil {
		return Task{}, err
	}
	defer func() { _ = unix.Close(dir) }()
	line, err := readAt(dir, "stat")
	if err != nil {
		return Task{}, err
	}
	s, err := parseStat(line)
	if err != nil {
		return Task{}, err
	}
	task := Task{TGID: tgid, Start: s.start, Forked: s.flags&forkedNoExec != 0, Comm: s.comm}
	if task.Age, err = age(s.start); err != nil {
		return Task{}, err
	}
	name := make([]byte, maxExe)
	n, err := unix.Readlinkat(dir, "exe", name)
	if err != nil {
		return Task{}, fmt.Errorf("read the name of the executable: %w", err)
	}
	task.Exe = string(name[:n])
	exe, err := exeFile(dir)
	if err != nil {
		return Task{}, err
	}
	task.ExeDev, task.ExeIno = exe.dev, exe.ino
	return task, nil
}

// age of something that started so many ticks after boot. Both clocks are of our own time namespace.
func age(start uint64) (time.Duration, error) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return 0, fmt.Errorf("read the time since boot: %w", err)
	}
	up := time.Duration(now.Nano())
	if start > uint64(up/tick) {
		return 0, nil
	}
	return up - time.Duration(start)*tick, nil
}

func openProc(pid int) (int, error) {
	if pid <= 0 {
		return -1, errors.New("no such process in this pid namespace")
	}
	fd, err := unix.Open("/proc/"+strconv.Itoa(pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open its directory in /proc: %w", err)
	}
	return fd, nil
}

// readAt reads the beginning of a file of /proc, which fills a buffer in one read.
func readAt(dir int, name string) ([]byte, error) {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	defer func() { _ = unix.Close(fd) }()
	buf := make([]byte, maxProcFile)
	for {
		n, err := unix.Read(fd, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", name, err) // ESRCH when the process ended since
		}
		return buf[:n], nil
	}
}
