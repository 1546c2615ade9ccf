// SPDX-License-Identifier: Apache-2.0

package origin

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/judge"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// maxScanned processes of the host are looked at where the kernel cannot be asked.
const maxScanned = 4096

// Target tells whom a held call signals: the process of the thread with this id, one that it started, nobody, or another. It reads as
// many processes as lie between the two; before Linux 6.11, up to maxScanned.
//
// A process that ends while the call is held leaves its number to another. Numbers are given out in turn, so that this takes as
// many forks as there are numbers.
func (g *Gatherer) Target(tid int, call syscalls.Call, args [6]uint64) judge.Target {
	t, err := g.target(tid, int(int32(args[0])), call.String() == "kill")
	switch {
	case errors.Is(err, errGone):
		return judge.Gone
	case err != nil:
		return judge.NoTarget
	}
	return t
}

// errGone: the kernel says that no process has the number.
var errGone = errors.New("no such process")

func (g *Gatherer) target(tid, number int, groups bool) (judge.Target, error) {
	group := groups && number < -1
	if group {
		number = -number
	}
	if number <= 0 {
		return judge.NoTarget, nil // the sender's own group, whoever is in it; or everybody
	}
	sender, err := kinOf(tid)
	if err != nil {
		return judge.NoTarget, err
	}
	pid, err := translated(tid, number)
	if group && errors.Is(err, errGone) {
		return judge.NoTarget, nil // a group outlives its leader
	}
	if err != nil {
		return judge.NoTarget, err
	}
	k, err := kinOf(pid)
	if err != nil {
		return judge.NoTarget, err
	}
	if k.process == sender.process && !group {
		return judge.Itself, nil
	}
	for range maxAncestors {
		if k.process == sender.process {
			return judge.Descendant, nil
		}
		if k.parent <= 0 {
			break
		}
		if k, err = kinOf(k.parent); err != nil {
			return judge.NoTarget, err
		}
	}
	return judge.NoTarget, nil
}

// kin of a thread, by the numbers of our pid namespace.
type kin struct {
	process, parent int
	inner           int // the thread's number in its own pid namespace
}

func kinOf(tid int) (k kin, err error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(tid) + "/status")
	if err != nil {
		return k, fmt.Errorf("read the status of a thread: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":") // a program's name has its line feeds escaped
		fields := strings.Fields(value)
		if len(fields) == 0 {
			continue
		}
		switch name {
		case "Tgid":
			k.process, err = strconv.Atoi(fields[0])
		case "PPid":
			k.parent, err = strconv.Atoi(fields[0])
		case "NSpid":
			k.inner, err = strconv.Atoi(fields[len(fields)-1])
		}
		if err != nil {
			return k, fmt.Errorf("read the status of a thread: %w", err)
		}
	}
	if k.process <= 0 {
		return k, errors.New("read the status of a thread: it is cut")
	}
	return k, nil
}

// translated is a number of the pid namespace of a thread as ours.
func translated(tid, number int) (int, error) {
	space, err := unix.Open("/proc/"+strconv.Itoa(tid)+"/ns/pid", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("open the pid namespace: %w", err)
	}
	defer func() { _ = unix.Close(space) }()
	pid, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(space), unix.NS_GET_PID_FROM_PIDNS, uintptr(number)) // since Linux 6.11
	switch errno {
	case 0:
		return int(pid), nil
	case unix.ESRCH:
		return 0, errGone
	case unix.ENOTTY:
		return scanned(tid, number)
	}
	return 0, fmt.Errorf("ask whom the number is: %w", errno)
}

// scanned is translated by what all processes say of themselves. Threads other than a process's first are not found.
func scanned(tid, number int) (int, error) {
	space := func(pid string) string {
		name, err := os.Readlink("/proc/" + pid + "/ns/pid")
		if err != nil {
			return ""
		}
		return name
	}
	own := space(strconv.Itoa(tid))
	if own == "" {
		return 0, errors.New("read the pid namespace of a thread")
	}
	dir, err := os.Open("/proc")
	if err != nil {
		return 0, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(maxScanned)
	if err != nil {
		return 0, err
	}
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil || space(name) != own {
			continue
		}
		if k, err := kinOf(pid); err == nil && k.inner == number {
			return pid, nil
		}
	}
	return 0, errors.New("find a process: none says that it has the number") // nor does a thread
}
