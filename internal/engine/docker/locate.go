// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/engine/process"
)

// hostInfo is what is read of Docker's Info.
type hostInfo struct {
	CgroupDriver string
	Runtimes     map[string]struct {
		Path string `json:"path"`
	}
}

// host is asked again only for a runtime that was not there before: the answer is a long one.
func (d *Docker) host(ctx context.Context, runtime string) (hostInfo, error) {
	d.mu.Lock()
	known := d.info
	d.mu.Unlock()
	if known != nil {
		if _, ok := known.Runtimes[runtime]; ok {
			return *known, nil
		}
	}
	var h hostInfo
	if err := d.client.Get(ctx, "/info", nil, &h); err != nil {
		return h, fmt.Errorf("ask docker for its runtimes: %w", err)
	}
	d.mu.Lock()
	d.info = &h
	d.mu.Unlock()
	return h, nil
}

// runtime that Docker knows by a name. Whittle's wrapper (whittle-runc) is not what creates containers: runc is.
func (h hostInfo) runtime(name string) engine.Runtime {
	said := name
	if r, ok := h.Runtimes[name]; ok && r.Path != "" {
		said = r.Path
	}
	if real, ok := strings.CutPrefix(filepath.Base(said), "whittle-"); ok && real != "" {
		said = real
	}
	return engine.ResolveRuntime(said)
}

// locate adds what the kernel knows: cgroup, mount namespace. A container that has died since Docker answered becomes Exited,
// without a pid.
func locate(c *engine.Container, in inspection, h hostInfo) error {
	c.Runtime = h.runtime(in.HostConfig.Runtime)
	if !c.State.Alive() || in.State.Pid <= 0 {
		if c.State.Alive() {
			c.State = engine.Exited
		}
		return nil
	}
	err := identify(c, in, h)
	if errors.Is(err, process.ErrGone) || errors.Is(err, os.ErrNotExist) {
		c.State, c.PID, c.CgroupID, c.MountNS = engine.Exited, 0, 0, 0
		return nil
	}
	return err
}

func identify(c *engine.Container, in inspection, h hostInfo) error {
	p, err := process.Open(in.State.Pid)
	if err != nil {
		return err
	}
	defer p.Close()
	if h.CgroupDriver != "none" { // rootless Docker on some hosts: its containers have no cgroups of their own
		cgroup, err := p.Cgroup()
		if err != nil {
			return err
		}
		// The pid may have been given to another process between Docker's answer and Open. Docker calls a container's
		// cgroup by its id: docker/ID, docker-ID.scope.
		if !strings.Contains(cgroup, in.ID) {
			return process.ErrGone
		}
		if c.CgroupID, err = p.CgroupID(); err != nil {
			return err
		}
	}
	if c.MountNS, err = p.MountNS(); err != nil {
		return err
	}
	c.PID = in.State.Pid
	return p.Alive()
}
