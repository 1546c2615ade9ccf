// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"syscall"
	"time"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/workload"
)

const (
	barMemoryMB = 40
	// settle is how long an agent has before it is looked at, and window how long it is looked at: once it stores
	// everything in that time. Few and many containers are looked at for less.
	settle = 5 * time.Second
	window = 31 * time.Second
	glance = 8 * time.Second
)

// steps of the number of containers.
var memorySteps = []int{1, 100, 1000}

// service is what runs in each container: some forty distinct calls by three programs, and a few more every 20 s.
const service = `read go
exec sh -c 'ls -l /usr/bin >/dev/null; cat /proc/self/status >/dev/null; trap : USR1; while :; do sleep 20; ls /etc >/dev/null; done'`

// memory measures one agent while its containers become more.
func (b *bench) memory(ctx context.Context) (err error) {
	a, err := startAgent(ctx, b)
	if err != nil {
		return err
	}
	var containers []*exec.Cmd
	defer func() {
		err = errors.Join(err, a.stop())
		for _, c := range containers {
			c.Process.Kill() // its children end with the cgroups
			c.Wait()
		}
	}()
	t := b.report.table("The agent", fmt.Sprintf("Memory and CPU time of `whittle agent` while it learns from containers: each a cgroup with a "+
		"shell in it that lists, reads and sleeps, and each of a workload of its own, registered at the agent's socket as the OCI "+
		"hook does it. Over %d s, in which it stores everything once; 1 and 1000 over %d s.", int(window.Seconds()), int(glance.Seconds())),
		"containers", "resident, median", "most", "of it anonymous", "BPF maps (kernel)", "CPU of one core", "registering one", "bar")
	for _, n := range memorySteps {
		began, first := time.Now(), len(containers)
		for len(containers) < n {
			cmd, err := b.container(ctx, a, len(containers))
			if cmd != nil {
				containers = append(containers, cmd)
			}
			if err != nil {
				return err
			}
		}
		each := time.Since(began) / time.Duration(n-first)
		if err := b.look(ctx, a, t, n, each); err != nil {
			return err
		}
		b.say("memory: %d containers", n)
	}
	return nil
}

// look at the agent for a while.
func (b *bench) look(ctx context.Context, a *agentProcess, t *table, n int, each time.Duration) error {
	wait := func(d time.Duration) error {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(d):
			return nil
		}
	}
	if err := wait(settle); err != nil {
		return err
	}
	start, err := a.usage()
	if err != nil {
		return err
	}
	var resident, anonymous series
	began, last := time.Now(), start
	for time.Since(began) < lookedAt(n) {
		if err := wait(500 * time.Millisecond); err != nil {
			return err
		}
		if last, err = a.usage(); err != nil {
			return err
		}
		resident = append(resident, sample{float64(last.resident), true})
		anonymous = append(anonymous, sample{float64(last.anonymous), true})
	}
	cpu := float64(last.cpu-start.cpu) / float64(time.Since(began))
	status, err := a.client.Status(ctx)
	if err != nil {
		return err
	}
	learning := 0
	for _, c := range status.Containers {
		if c.Distinct > 0 && (c.Mode == api.Learning || c.Mode == api.Settled) {
			learning++
		}
	}
	if learning != n {
		return fmt.Errorf("the agent learns from %d of %d containers", learning, n)
	}
	verdict := ""
	if n == 100 {
		verdict = bar(resident.most() < barMemoryMB<<10, "below %d MB", barMemoryMB)
	}
	t.row(fmt.Sprint(n), mb(resident.median()), mb(resident.most()), mb(anonymous.median()), mb(float64(last.maps)),
		fmt.Sprintf("%.1f %%", 100*cpu), each.Round(100*time.Microsecond).String(), verdict)
	return nil
}

// lookedAt is how long: the bar is about a hundred containers.
func lookedAt(n int) time.Duration {
	if n == 100 {
		return window
	}
	return glance
}

func mb(kb float64) string { return fmt.Sprintf("%.1f MB", kb/1024) }

// container is registered before its first call, and then begins.
func (b *bench) container(ctx context.Context, a *agentProcess, n int) (*exec.Cmd, error) {
	g, err := b.groups.make(fmt.Sprintf("c%d", n))
	if err != nil {
		return nil, err
	}
	defer g.close()
	cmd := exec.Command("sh", "-c", service)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	g.put(cmd)
	start, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	defer start.Close()
	name := fmt.Sprintf("bench-%d", n)
	err = a.client.Register(ctx, api.Registration{Container: engine.Container{
		Container: workload.Container{
			Engine: "oci", ID: name, Name: name, PID: cmd.Process.Pid, CgroupID: g.id,
			Workload: workload.Workload{Image: name, Digest: fmt.Sprintf("sha256:%064x", n), Command: []string{"sh"}},
		},
		State: engine.Created, Seccomp: engine.SeccompUnconfined,
	}})
	if err != nil {
		return cmd, fmt.Errorf("register a container: %w", err)
	}
	_, err = io.WriteString(start, "\n")
	return cmd, err
}
