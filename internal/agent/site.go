// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"golang.org/x/net/bpf"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/engine/process"
	"github.com/whittle-sec/whittle/internal/hint"
	"github.com/whittle-sec/whittle/internal/inject"
	"github.com/whittle-sec/whittle/internal/ward"
	"github.com/whittle-sec/whittle/internal/workload"
)

// site is what an injection needs to know of a container.
type site struct {
	c       *tracked
	view    api.Container
	request inject.Request
	orders  *ward.Orders
	held    bool // its calls are held
	deaf    bool // they are, and nobody reads its listeners: they were lost

	program []bpf.RawInstruction // that was injected before
}

// siteOf a container by its reference or by one of its processes.
func (a *Agent) siteOf(ctx context.Context, ref string, pid int) (s site, err error) {
	if pid > 0 {
		if err := a.introducePID(ctx, pid); err != nil {
			return s, err
		}
	}
	err = a.ask(ctx, func(m *model) error {
		c, err := m.find(ref, pid)
		if err != nil {
			return err
		}
		s.c, s.view, s.held = c, c.view, c.held != nil
		if s.held {
			s.program = c.held.program
		}
		s.deaf = c.held == nil && m.wasHeld(c) || c.held != nil && c.held.supervisor.Listeners(c.held.handle) == 0
		return nil
	})
	if err != nil {
		return s, err
	}
	if s.request, err = requestFor(s.view); err != nil {
		return s, err
	}
	s.orders, err = a.loadOrders(ctx, s.view.WorkloadID)
	if errors.Is(err, errNoPolicy) {
		err = hint.Add(fmt.Errorf("%w: %s: %w", api.ErrNotFound, s.view.Name, err),
			"it is learned from while it runs: whittle status shows when it has settled; policies: whittle policy list")
	}
	return s, err
}

// find a container by its name, its ID or the beginning of it, or by its first process or its cgroup.
func (m *model) find(ref string, pid int) (*tracked, error) {
	var found []*tracked
	for _, c := range m.containers {
		switch {
		case c.gone:
		case pid > 0 && m.contains(c, pid), ref != "" && (c.view.Name == ref || c.key.id == ref):
			return c, nil
		case ref != "" && len(ref) >= 4 && strings.HasPrefix(c.key.id, ref):
			found = append(found, c)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return nil, fmt.Errorf("%w: %q is the beginning of %d containers' ids", api.ErrInvalid, ref, len(found))
	case pid > 0:
		return nil, fmt.Errorf("%w: process %d is in no container", api.ErrNotFound, pid)
	}
	return nil, hint.Add(fmt.Errorf("%w: no container %q runs", api.ErrNotFound, ref), "whittle status lists those that the agent knows")
}

// contains tells whether a process is in the container.
func (m *model) contains(c *tracked, pid int) bool {
	if c.view.PID == pid {
		return true
	}
	p, err := process.Open(pid)
	if err != nil {
		return false
	}
	defer p.Close()
	if c.view.CgroupID > 1 {
		id, err := p.CgroupID()
		return err == nil && id == c.view.CgroupID
	}
	ns, err := p.MountNS()
	return err == nil && ns != 0 && ns == c.view.MountNS
}

// requestFor a container's processes.
func requestFor(c api.Container) (inject.Request, error) {
	p, err := process.Open(c.PID)
	if err != nil {
		return inject.Request{}, err
	}
	defer p.Close()
	// Without the freezer one thread of each process stands still while the others serve; a process that is forked meanwhile
	// inherits the filter or is found by another look. Frozen, all of them stand still at once, and longer.
	r := inject.Request{PIDs: []int{c.PID}, Starts: []uint64{startOf(c.PID)}, MountNS: c.MountNS, NoFreeze: true}
	if c.CgroupID > 1 {
		if r.Cgroup, err = p.CgroupDir(); err != nil {
			return inject.Request{}, err
		}
		r.MountNS = 0 // a program of the container may have made itself another; the cgroup it cannot leave
	}
	return r, p.Alive()
}

// maxCommandLine of a process that no engine tells of, in bytes.
const maxCommandLine = 4096

// introducePID registers the process as a container of its own, unless it is in one that is known. Its workload is its
// program and its arguments, as of a bundle that no engine made.
func (a *Agent) introducePID(ctx context.Context, pid int) error {
	known := false
	err := a.ask(ctx, func(m *model) error {
		_, err := m.find("", pid)
		known = err == nil
		return nil
	})
	if err != nil || known {
		return err
	}
	p, err := process.Open(pid)
	if err != nil {
		return fmt.Errorf("%w: %w", api.ErrNotFound, err)
	}
	defer p.Close()
	var r api.Registration
	c := &r.Container
	c.Engine, c.ID, c.PID, c.Name = "process", fmt.Sprintf("%d-%d", pid, startOf(pid)), pid, commOf(pid)
	line, err := readSome(fmt.Sprintf("/proc/%d/cmdline", pid), maxCommandLine)
	if err != nil || len(line) == 0 {
		return fmt.Errorf("%w: process %d has no command line: it is a kernel thread or ends", api.ErrInvalid, pid)
	}
	c.Workload.Command = strings.Split(strings.TrimSuffix(string(line), "\x00"), "\x00")
	c.Workload.Image = workload.Printable(path.Base(c.Workload.Command[0]), 200)
	if c.MountNS, err = p.MountNS(); err != nil {
		return err
	}
	if c.CgroupID, err = p.CgroupID(); err != nil {
		return err
	}
	if c.MountNS == a.self.mountNS {
		return hint.Add(fmt.Errorf("%w: process %d is in no container: it shares this host's mounts, and its cgroup may hold other programs", api.ErrInvalid, pid),
			"supervise a command of the host with: whittle run --policy FILE -- COMMAND")
	}
	if err := p.Alive(); err != nil {
		return err
	}
	return a.ask(ctx, func(m *model) error { return m.register(r, 0, true) })
}

func readSome(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit))
}
