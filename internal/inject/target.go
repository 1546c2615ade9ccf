// SPDX-License-Identifier: Apache-2.0

package inject

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// target is a process with everything opened and looked up that can be before it is stopped.
type target struct {
	pid     int
	start   uint64
	pidfd   int
	mem     memory
	vdso    uint64
	vdsoLen uint64
	stopped bool // by a signal, before us
	tracer  int
	tasks   []task
	uneven  bool // its threads have different numbers of filters
	held    map[int]*thread
}

// task is a thread that looks as if it could be used, the best first.
type task struct {
	tid, filters int
	state        byte
}

// identity of a process, which its number alone is not.
type identity struct {
	pid   int
	start uint64
}

// prepare a process. start is 0 where it is not known yet.
func prepare(pid int, start uint64) (_ *target, err error) {
	t := &target{pid: pid, pidfd: -1, mem: -1, held: map[int]*thread{}}
	defer func() {
		if err != nil {
			t.close()
		}
	}()
	// The descriptor first: what is read after it and found alive at the end was this process all the while.
	if t.pidfd, err = unix.PidfdOpen(pid, 0); err != nil {
		return nil, fmt.Errorf("open process %d: %w", pid, err)
	}
	s, err := readStat(procPath(pid, "/stat"))
	if err != nil {
		return nil, err
	}
	if start != 0 && s.start != start {
		return nil, fmt.Errorf("process %d is not the one that was meant: %w", pid, errReused)
	}
	t.start = s.start
	if err := t.look(); err != nil {
		return nil, err
	}
	if t.mem, err = openMemory(pid); err != nil {
		return nil, err
	}
	if t.vdso, t.vdsoLen, err = vdsoOf(pid); err != nil {
		return nil, err
	}
	return t, nil
}

var errReused = errors.New("its number has been used again")

// look at the threads.
func (t *target) look() error {
	tids, err := numbersIn(procPath(t.pid, "/task"), maxThreads)
	if err != nil {
		return err
	}
	t.tasks, t.uneven = t.tasks[:0], false
	for _, tid := range tids {
		s, err := readStatus(taskPath(t.pid, tid, "/status"))
		if absent(err) {
			continue
		}
		if err != nil {
			return err
		}
		if s.state == 'Z' || s.state == 'X' {
			continue
		}
		t.tracer = max(t.tracer, s.tracer)
		t.stopped = t.stopped || s.state == 'T'
		t.tasks = append(t.tasks, task{tid: tid, filters: s.filters, state: s.state})
		t.uneven = t.uneven || s.filters != t.tasks[0].filters
	}
	if len(t.tasks) == 0 {
		return errGone
	}
	// The deepest chain first: the threads' filters can be made one when every other chain is a part of the caller's. A
	// thread that waits uninterruptibly comes last.
	slices.SortStableFunc(t.tasks, func(a, b task) int {
		if byState := cmp.Compare(flag(a.state == 'D'), flag(b.state == 'D')); byState != 0 {
			return byState
		}
		return -cmp.Compare(a.filters, b.filters)
	})
	return nil
}

// seize a thread and see that it still belongs to the process that was prepared.
func (t *target) seize(tid int) (*thread, error) {
	if th := t.held[tid]; th != nil {
		return th, nil
	}
	if err := seize(tid); err != nil {
		if errors.Is(err, unix.EPERM) {
			return nil, t.whyNot(tid)
		}
		return nil, gone(err)
	}
	th := &thread{pid: t.pid, tid: tid, start: t.start, seized: true}
	t.held[tid] = th
	// Seizing keeps the number from being used again; what is under it now stays.
	s, err := readStat(taskPath(t.pid, tid, "/stat"))
	if err == nil {
		var whole stat
		if whole, err = readStat(procPath(t.pid, "/stat")); err == nil && whole.start != t.start {
			err = errReused
		}
	}
	if err != nil || s.state == 'Z' {
		return nil, errors.Join(err, errGone)
	}
	return th, gone(interrupt(tid))
}

// whyNot says who has the thread, when the kernel does not give it to us.
func (t *target) whyNot(tid int) error {
	s, err := readStatus(taskPath(t.pid, tid, "/status"))
	switch {
	case absent(err) || s.state == 'Z' || s.state == 'X':
		return errGone
	case s.tracer != 0:
		return fmt.Errorf("process %d is traced by process %d already (a debugger, or strace)", t.pid, s.tracer)
	}
	return fmt.Errorf("the kernel does not let us trace process %d: %w", t.pid, unix.EPERM)
}

// stop a thread of the process.
func (t *target) stop(tid int, patience time.Duration) (*thread, error) {
	th, err := t.seize(tid)
	if err != nil {
		return nil, err
	}
	if th.stopped {
		return th, nil
	}
	if err := awaitStop(tid, patience); err != nil {
		if errors.Is(err, errGone) {
			delete(t.held, tid)
		}
		return nil, err
	}
	th.settle(t.mem)
	return th, nil
}

// reopen what belongs to the program: it was another one when it was opened.
func (t *target) reopen() (err error) {
	t.mem.close()
	if t.mem, err = openMemory(t.pid); err != nil {
		return err
	}
	t.vdso, t.vdsoLen, err = vdsoOf(t.pid)
	return err
}

func (t *target) close() {
	t.mem.close()
	if t.pidfd >= 0 {
		unix.Close(t.pidfd)
	}
	t.mem, t.pidfd = -1, -1
}
