// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// groups are the benchmark's cgroups, all below one, so that all of them end with it.
type groups struct{ dir string }

func newGroups() (*groups, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("look for the cgroup2 mount: %w", err)
	}
	for line := range strings.Lines(string(mounts)) {
		before, after, _ := strings.Cut(line, " - ")
		if fields := strings.Fields(before); len(fields) >= 5 && strings.HasPrefix(after, "cgroup2 ") {
			dir, err := os.MkdirTemp(fields[4], "whittle-bench-")
			if err != nil {
				return nil, fmt.Errorf("make a cgroup: %w", err)
			}
			return &groups{dir}, nil
		}
	}
	return nil, errors.New("no cgroup2 file system is mounted")
}

// close kills what is left in the groups and removes them.
func (g *groups) close() error {
	if err := os.WriteFile(filepath.Join(g.dir, "cgroup.kill"), []byte("1"), 0); err != nil {
		return fmt.Errorf("end what is left in the cgroups: %w", err)
	}
	var err error
	for range 500 { // the killed are gone a moment later
		if err = g.removeAll(); err == nil {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return fmt.Errorf("remove the cgroups: %w", err)
}

func (g *groups) removeAll() error {
	below, err := os.ReadDir(g.dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range below {
		if e.IsDir() {
			errs = append(errs, os.Remove(filepath.Join(g.dir, e.Name())))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return os.Remove(g.dir)
}

// group is one cgroup, and stands for a container.
type group struct {
	dir *os.File
	id  uint64
}

func (g *groups) make(name string) (*group, error) {
	path := filepath.Join(g.dir, name)
	if err := os.Mkdir(path, 0o755); err != nil && !os.IsExist(err) {
		return nil, fmt.Errorf("make a cgroup: %w", err)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open a cgroup: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, errors.Join(fmt.Errorf("look at a cgroup: %w", err), f.Close())
	}
	return &group{f, st.Ino}, nil
}

func (g *group) close() error { return g.dir.Close() }

// put has a command start in the group.
func (g *group) put(cmd *exec.Cmd) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(g.dir.Fd())
}
