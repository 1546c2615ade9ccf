// SPDX-License-Identifier: Apache-2.0

package inject

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const maxGroups = 4096

// enumerate the processes that are meant, without ourselves.
func (t *tracer) enumerate() ([]int, error) {
	pids, err := members(&t.req)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(pids, func(pid int) bool {
		return pid == unix.Getpid() || pid == t.parent || pid == t.caller
	}), nil
}

// members of the request: of its cgroup and the groups below, or its processes and their descendants.
func members(r *Request) ([]int, error) {
	var pids []int
	var err error
	if r.Cgroup != "" {
		pids, err = inGroup(r.Cgroup)
	} else {
		pids, err = descendants(r.PIDs)
	}
	slices.Sort(pids)
	return slices.Compact(pids), err
}

func inGroup(dir string) (pids []int, err error) {
	groups := []string{dir}
	for n := 0; n < len(groups); n++ {
		raw, err := readFile(filepath.Join(groups[n], "cgroup.procs"), maxProcFile)
		switch {
		case n > 0 && (absent(err) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EOPNOTSUPP)):
			continue // removed meanwhile, or threaded: its processes are in its parent's list
		case err != nil:
			return nil, err
		}
		for line := range bytes.Lines(raw) {
			// 0 is a process outside of our pid namespace.
			if pid, err := strconv.Atoi(string(bytes.TrimSpace(line))); err == nil && pid > 0 {
				pids = append(pids, pid)
			}
		}
		below, err := directoriesIn(groups[n])
		if err != nil {
			continue // removed meanwhile
		}
		for _, name := range below {
			groups = append(groups, filepath.Join(groups[n], name))
		}
		if len(groups) > maxGroups || len(pids) > maxProcesses {
			return nil, fmt.Errorf("list the processes of %s: more than %d groups or %d processes", dir, maxGroups, maxProcesses)
		}
	}
	return pids, nil
}

func directoriesIn(path string) ([]string, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	defer unix.Close(fd)
	var names, out []string
	buf := make([]byte, 1<<14)
	for {
		n, err := unix.ReadDirent(fd, buf)
		if err != nil || n <= 0 {
			return out, err
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names[:0])
		for _, name := range names {
			var st unix.Stat_t
			if unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
				out = append(out, name)
			}
		}
	}
}

// descendants of processes, and they themselves.
func descendants(roots []int) ([]int, error) {
	all := slices.Clone(roots)
	seen := map[int]bool{}
	for n := 0; n < len(all); n++ {
		pid := all[n]
		if seen[pid] {
			continue
		}
		seen[pid] = true
		tids, err := numbersIn(procPath(pid, "/task"), maxThreads)
		if err != nil {
			continue // exited
		}
		for _, tid := range tids {
			raw, err := readFile(taskPath(pid, tid, "/children"), maxProcFile)
			if err != nil {
				continue
			}
			for f := range strings.FieldsSeq(string(raw)) {
				if child, err := strconv.Atoi(f); err == nil {
					all = append(all, child)
				}
			}
		}
		if len(all) > maxProcesses {
			return nil, fmt.Errorf("list the descendants of %v: more than %d", roots, maxProcesses)
		}
	}
	return all, nil
}

// freezePass takes the container at once. While it is frozen nothing forks, and frozen threads can be seized; they cannot
// make calls, so the freezer is let go when all of them are ours, and no thread runs but the one that makes our calls.
func (t *tracer) freezePass() error {
	file := filepath.Join(t.req.Cgroup, "cgroup.freeze")
	was, err := readFile(file, 64)
	if absent(err) {
		return nil // the root group, or cgroup v1: one by one
	}
	if err != nil {
		return err
	}
	began := time.Now()
	if strings.TrimSpace(string(was)) == "1" {
		t.j.owe(freeze)
	} else {
		t.j.owe(thaw)
		if err := writeFile(file, "1"); err != nil {
			t.j.owe(nothing)
			return err
		}
	}
	t.passes++
	targets, err := t.seizeAll()
	step("seized")
	if thawing := writeFile(file, "0"); thawing != nil {
		err = errors.Join(err, thawing)
	}
	if err == nil && frozenStill(t.req.Cgroup) {
		t.problem("the container is frozen by a group above %s: its processes cannot be reached until it is thawed", t.req.Cgroup)
		err = fmt.Errorf("thaw the container: %w", unix.EBUSY)
	}
	reports := make([]*Process, len(targets))
	if err == nil {
		err = t.loadAll(targets, reports)
	}
	if t.j.owed() == freeze {
		err = errors.Join(err, writeFile(file, "1"))
	}
	t.j.owe(nothing)
	for _, tg := range targets {
		if t.stuck[identity{tg.pid, tg.start}] == nil {
			t.letGo(tg)
		}
	}
	t.frozen = time.Since(began)
	for i, tg := range targets {
		if reports[i] != nil {
			reports[i].Pause = t.frozen
			t.conclude(tg, reports[i])
		}
		if t.stuck[identity{tg.pid, tg.start}] == nil {
			tg.close()
		}
	}
	return err
}

// seizeAll stops every thread of every process of the frozen group, until a look at it finds nobody new.
func (t *tracer) seizeAll() (targets []*target, err error) {
	known := map[identity]bool{}
	for range 16 {
		pids, err := t.enumerate()
		if err != nil {
			return targets, err
		}
		found := false
		for _, pid := range pids {
			tg, err := t.prepare(pid)
			if err != nil {
				return targets, err
			}
			if tg == nil {
				continue
			}
			if id := (identity{tg.pid, tg.start}); known[id] {
				tg.close()
				continue
			}
			known[identity{tg.pid, tg.start}], found = true, true
			if err := tg.seizeThreads(); err != nil && !errors.Is(err, errGone) {
				t.letGo(tg)
				t.fail(identity{tg.pid, tg.start}, err)
				tg.close()
				continue
			}
			targets = append(targets, tg)
		}
		t.j.tick()
		if !found {
			break
		}
	}
	for _, tg := range targets {
		tg.awaitThreads()
	}
	return targets, nil
}

// seizeThreads of a process, those too that its threads make meanwhile.
func (t *target) seizeThreads() error {
	for range 100 {
		found := false
		for _, task := range t.tasks {
			if t.held[task.tid] != nil {
				continue
			}
			found = true
			if _, err := t.seize(task.tid); err != nil && !errors.Is(err, errGone) {
				return err
			}
		}
		if !found {
			return nil
		}
		if err := t.look(); err != nil {
			return err
		}
	}
	return errors.New("its threads make threads faster than they can be seized")
}

// awaitThreads that can stop. One that waits for its vfork child cannot, and stops before it runs again.
func (t *target) awaitThreads() {
	patience := 20 * time.Millisecond
	for tid, th := range t.held {
		if th.stopped {
			continue
		}
		switch err := awaitStop(tid, patience); {
		case errors.Is(err, errGone):
			delete(t.held, tid)
		case err != nil:
			patience = 2 * time.Millisecond // waited for once
		default:
			th.settle(t.mem)
		}
	}
}

// loadAll loads the filter into each process by its best thread that is stopped.
func (t *tracer) loadAll(targets []*target, reports []*Process) error {
	for i, tg := range targets {
		if unix.Getppid() != t.parent {
			return errOrphan
		}
		best := -1
		for _, task := range tg.tasks {
			if th := tg.held[task.tid]; th != nil && th.stopped {
				best = task.tid
				break
			}
		}
		switch {
		case best >= 0:
			reports[i] = t.load(tg, tg.held[best])
		case len(tg.held) > 0:
			t.stuck[identity{tg.pid, tg.start}] = tg
		}
	}
	return nil
}

func frozenStill(dir string) bool {
	raw, err := readFile(filepath.Join(dir, "cgroup.events"), 4096)
	return err == nil && bytes.Contains(raw, []byte("frozen 1"))
}
