// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"path/filepath"
	"testing"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/image"
	"github.com/whittle-sec/whittle/internal/syscalls"
	"github.com/whittle-sec/whittle/internal/testenv"
)

// TestSupervisedRootless: a user's containers start under supervision by root's agent, too.
func TestSupervisedRootless(t *testing.T) {
	t.Parallel()
	testenv.NeedBPF(t)
	testenv.NeedPodman(t)
	testenv.NeedTool(t, "newuidmap", "newgidmap", "unshare", "nsenter", "setpriv")
	u := newUser(t)
	d := u.startAgent(t)
	archive := filepath.Join(u.dir, "image.tar")
	writeImage(t, archive, []image.File{
		image.Dir("proc", 0o555), image.Dir("sys", 0o555), image.Dir("dev", 0o755), image.Dir("etc", 0o755),
		program(t, compile(t, "markers.c", "-DMARKS={__NR_getpgrp,0},{__NR_getrusage,100000}"), "service"),
		program(t, compile(t, "attack.c"), "attack"),
	})
	u.podman(t, "load", "--quiet", "--input", archive)
	for _, runtime := range []string{"runc", "crun"} {
		t.Run(runtime, func(t *testing.T) {
			testenv.NeedRuntime(t, runtime)
			d := d.as(t)
			name := "held-" + runtime
			start := func() {
				t.Helper()
				flags := []string{"--runtime", runtime, "run", "--network", "none", "--detach", "--name", name}
				if runtime == "crun" { // which wants a cgroup delegated to the user
					flags = append(flags, "--cgroups", "disabled")
				}
				u.podman(t, append(flags, lanesImage, name)...)
			}
			start()
			c := d.container(name, "sleeps", func(c api.Container) bool { return c.Distinct == 2 })
			u.podman(t, "rm", "--force", "--time", "0", name)
			d.forgotten()
			// Whoever reads filters back interrupts a sleep, which is restarted.
			own := syscalls.KernelOwn(syscalls.X86_64)
			learned := service(d.policy(c.WorkloadID), syscalls.X86_64).Union(own)
			d.whittle("policy", "mode", c.WorkloadID, "enforce")
			start()
			d.container(name, "is supervised", func(c api.Container) bool {
				s := c.Supervision
				return s != nil && s.How == "start" && s.Mode == api.ModeEnforce && s.Listeners > 0 && s.Calls > 0
			})
			u.podman(t, "exec", name, "/attack") // it does not mind what it is told
			d.container(name, "was refused calls", func(c api.Container) bool {
				return c.Supervision != nil && c.Supervision.Denied >= 7
			})
			u.podman(t, "rm", "--force", "--time", "0", name)
			d.forgotten()
			for _, l := range d.heldLines("refused") {
				if l.Lane != "exec" || l.Comm != "attack" {
					t.Errorf("refused: %+v", l)
				}
			}
			if after := service(d.policy(c.WorkloadID), syscalls.X86_64); !after.Minus(learned).Empty() {
				t.Errorf("it learned %v", after.Minus(learned).Names(syscalls.X86_64))
			}
		})
	}
}
