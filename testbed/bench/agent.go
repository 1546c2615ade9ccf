// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/api"
)

// agentProcess is a real agent with a socket and a state directory of its own.
type agentProcess struct {
	whittle, socket, state string
	cmd                    *exec.Cmd
	log                    bytes.Buffer
	client                 *api.Client
}

func startAgent(ctx context.Context, b *bench, args ...string) (*agentProcess, error) {
	dir, err := os.MkdirTemp(b.dir, "agent")
	if err != nil {
		return nil, err
	}
	a := &agentProcess{whittle: b.whittle, socket: filepath.Join(dir, "sock"), state: filepath.Join(dir, "state")}
	a.client = api.NewClient(a.socket)
	// Not ctx: an interrupted benchmark stops it as any other.
	a.cmd = a.command(context.WithoutCancel(ctx), append([]string{"agent", "--podman", ""}, args...)...)
	a.cmd.Stderr = &a.log
	a.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true} // Setpgid: Ctrl-C is ours
	if err := a.cmd.Start(); err != nil {
		return nil, err
	}
	for range 500 {
		if _, err = a.client.Status(ctx); err == nil {
			return a, nil
		}
		if ctx.Err() != nil {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	return nil, errors.Join(fmt.Errorf("start the agent: %w", err), a.stop())
}

// command of whittle that talks to this agent.
func (a *agentProcess) command(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, a.whittle, append([]string{"--socket", a.socket, "--state", a.state}, args...)...)
}

// stop it as an init system does, and the holder of its listeners after it.
func (a *agentProcess) stop() (err error) {
	defer func() { err = errors.Join(err, a.endHolder()) }()
	a.client.Close()
	a.cmd.Process.Signal(unix.SIGTERM)
	late := time.AfterFunc(15*time.Second, func() { a.cmd.Process.Kill() })
	defer late.Stop()
	if err := a.cmd.Wait(); err != nil {
		return fmt.Errorf("stop the agent: %w: %s", err, a.log.String()[max(0, a.log.Len()-2000):])
	}
	return nil
}

// holder is the process that the agent has started to keep its listeners; it is nobody's child. 0 if there is none.
func (a *agentProcess) holder() int {
	names, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, name := range names {
		text, _ := os.ReadFile(name) // it may be gone
		words := strings.Split(string(text), "\x00")
		if len(words) > 1 && words[1] == "holder" && slices.Contains(words, filepath.Join(filepath.Dir(a.socket), "holder.sock")) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(name)))
			return pid
		}
	}
	return 0
}

// endHolder now: it would stay for a while, for the next agent.
func (a *agentProcess) endHolder() error {
	pid := a.holder()
	if pid == 0 {
		return nil
	}
	for range 250 {
		if err := unix.Kill(pid, unix.SIGTERM); err != nil {
			return nil // it is gone
		}
		time.Sleep(20 * time.Millisecond)
	}
	return fmt.Errorf("the holder %d does not end", pid)
}

// usage of the agent now.
type usage struct {
	resident, anonymous, peak int // kB
	cpu                       time.Duration
	maps                      int // kB of kernel memory, of its BPF maps
}

func (a *agentProcess) usage() (u usage, err error) { return usageOf(a.cmd.Process.Pid) }

func usageOf(pid int) (u usage, err error) {
	dir := fmt.Sprintf("/proc/%d", pid)
	status, err := os.ReadFile(dir + "/status")
	if err != nil {
		return u, fmt.Errorf("read what the agent uses: %w", err)
	}
	for name, to := range map[string]*int{"VmRSS": &u.resident, "RssAnon": &u.anonymous, "VmHWM": &u.peak} {
		fmt.Sscanf(field(string(status), name), "%d", to)
	}
	stat, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return u, fmt.Errorf("read what the agent uses: %w", err)
	}
	// After the name, which may hold anything: fields 14 and 15 of proc_pid_stat(5), in ticks of 10 ms.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	for _, i := range []int{11, 12} {
		n, err := strconv.Atoi(fields[i])
		if err != nil {
			return u, fmt.Errorf("read what the agent uses: %w", err)
		}
		u.cpu += time.Duration(n) * 10 * time.Millisecond
	}
	fds, err := filepath.Glob(dir + "/fdinfo/*")
	seen := map[string]bool{}
	for _, name := range fds {
		text, _ := os.ReadFile(name)
		id := field(string(text), "map_id")
		if !strings.Contains(string(text), "map_type:") || seen[id] {
			continue
		}
		seen[id] = true
		var n int
		fmt.Sscanf(field(string(text), "memlock"), "%d", &n)
		u.maps += n >> 10
	}
	return u, err
}
