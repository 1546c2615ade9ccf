// SPDX-License-Identifier: Apache-2.0

package podman

import (
	"errors"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/engine/process"
)

// locate adds what the kernel knows: cgroup, mount namespace, runtime. A container that has died since Podman answered
// becomes Exited, without a pid.
func locate(c *engine.Container, in inspection) error {
	c.Runtime = engine.ResolveRuntime(in.OCIRuntime)
	if !c.State.Alive() || in.State.Pid <= 0 {
		if c.State.Alive() {
			c.State = engine.Exited
		}
		return nil
	}
	err := identify(c, in)
	if errors.Is(err, process.ErrGone) || errors.Is(err, os.ErrNotExist) {
		c.State, c.PID, c.CgroupID, c.MountNS = engine.Exited, 0, 0, 0
		return nil
	}
	if err != nil {
		return err
	}
	if path := conmonRuntime(in.State.ConmonPid, in.ID); path != "" {
		name := c.Runtime.Name
		c.Runtime = engine.ResolveRuntime(path)
		c.Runtime.Name = name
	}
	return nil
}

func identify(c *engine.Container, in inspection) error {
	p, err := process.Open(in.State.Pid)
	if err != nil {
		return err
	}
	defer p.Close()
	cgroup, err := p.Cgroup()
	if err != nil {
		return err
	}
	// The pid may have been given to another process between Podman's answer and Open. That one is in another cgroup.
	// Rootless containers have none of their own, and Podman tells none.
	if want := in.State.CgroupPath; want != "" && cgroup != want && !strings.HasPrefix(cgroup, want+"/") {
		return process.ErrGone
	}
	// Without a cgroup of its own it runs in somebody's (a login session's, say), and the rest of that is not the container.
	if in.State.CgroupPath != "" {
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

// conmonRuntime is the runtime that conmon, Podman's monitor of one container, was told to use: `conmon … -c ID … -r PATH`.
// Podman itself tells only a name, which may stand for different executables.
func conmonRuntime(pid int, id string) string {
	if pid <= 0 || id == "" {
		return ""
	}
	f, err := os.Open("/proc/" + strconv.Itoa(pid) + "/cmdline")
	if err != nil {
		return ""
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, 64<<10))
	if err != nil {
		return ""
	}
	args := strings.Split(string(data), "\x00")
	ours, runtime := false, ""
	for i := 0; i+1 < len(args); i++ {
		switch args[i] {
		case "-c", "--cid":
			ours = args[i+1] == id
		case "-r", "--runtime":
			runtime = args[i+1]
		}
	}
	if !ours || !strings.HasPrefix(runtime, "/") {
		return ""
	}
	return runtime
}
