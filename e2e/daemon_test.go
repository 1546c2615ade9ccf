// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// daemon is a running agent with a state directory and a socket of its own.
type daemon struct {
	t             *testing.T
	bin           string
	state, socket string
	cmd           *exec.Cmd
	log           *output
	ended         chan struct{}
	err           error // of the process, once ended is closed
	// steering are programs that a killed agent left attached to a service's sockets, and that end with these.
	steering []ebpf.ProgramID
}

// startAgent and wait until it answers. Its end checks that it ended well and left nothing in the kernel.
func startAgent(t *testing.T, flags ...string) *daemon {
	t.Helper()
	// Not t.TempDir: a socket's path has 107 bytes at most.
	dir, err := os.MkdirTemp("", "wt")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	d := &daemon{t: t, bin: binary(t), state: filepath.Join(dir, "state"), socket: filepath.Join(dir, "sock")}
	d.start(flags...)
	return d
}

// as another test's, for a subtest.
func (d *daemon) as(t *testing.T) *daemon {
	c := *d
	c.t = t
	return &c
}

// start the agent, again after it has ended.
func (d *daemon) start(flags ...string) {
	d.t.Helper()
	args := append([]string{"agent", "--state", d.state, "--socket", d.socket}, flags...)
	d.cmd = exec.Command(d.bin, args...)
	d.log, d.ended = &output{}, make(chan struct{})
	d.cmd.Stderr = d.log
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	cmd, log, ended := d.cmd, d.log, d.ended
	go func() { d.err = cmd.Wait(); close(ended) }()
	d.t.Cleanup(func() {
		d.stop()
		d.endHolder()
		if d.t.Failed() {
			d.t.Logf("the agent's log:\n%s", log)
		}
	})
	eventually(d.t, "the agent answers", func() (bool, string) {
		select {
		case <-ended:
			d.t.Fatalf("the agent has ended: %v\n%s", d.err, log)
		default:
		}
		out, err := exec.Command(d.bin, "status", "--json", "--socket", d.socket).CombinedOutput()
		return err == nil, string(out)
	})
}

// stop it with SIGTERM, unless it has ended.
func (d *daemon) stop() {
	d.t.Helper()
	if !d.end(unix.SIGTERM) {
		return
	}
	if d.err != nil {
		d.t.Errorf("the agent ended with %v", d.err)
	}
	if _, err := os.Lstat(d.socket); err == nil {
		d.t.Errorf("the agent left its socket")
	}
}

// endHolder that the agent started: it is nobody's child, and would wait for another agent.
func (d *daemon) endHolder() {
	d.t.Helper()
	eventually(d.t, "the holder has ended", func() (bool, string) {
		pid := d.holder()
		if pid == 0 {
			return true, ""
		}
		if err := unix.Kill(pid, unix.SIGTERM); err != nil && !errors.Is(err, unix.ESRCH) {
			d.t.Error(err)
		}
		return false, fmt.Sprint(pid)
	})
}

// holder of this agent's listeners; 0 when none runs. Its lock says which it is, or was.
func (d *daemon) holder() int {
	d.t.Helper()
	text, err := os.ReadFile(filepath.Join(filepath.Dir(d.socket), "holder.sock.lock"))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid <= 1 {
		return 0
	}
	command, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || !strings.Contains(string(command), "\x00holder\x00") || !strings.Contains(string(command), filepath.Dir(d.socket)) {
		return 0
	}
	return pid
}

// end it with a signal and check that the kernel has nothing left of it.
func (d *daemon) end(signal os.Signal) (was bool) {
	d.t.Helper()
	select {
	case <-d.ended:
		return false
	default:
	}
	programs := d.programs()
	if err := d.cmd.Process.Signal(signal); err != nil {
		d.t.Error(err)
	}
	eventually(d.t, fmt.Sprintf("the agent ends at %v", signal), func() (bool, string) {
		select {
		case <-d.ended:
			return true, ""
		default:
			return false, d.log.String()
		}
	})
	if signal == unix.SIGKILL {
		steers := func(id ebpf.ProgramID) bool {
			p, err := ebpf.NewProgramFromID(id)
			if err != nil {
				return false
			}
			defer p.Close()
			return p.Type() == ebpf.SkReuseport
		}
		for _, id := range programs {
			if steers(id) {
				d.steering = append(d.steering, id)
			}
		}
		programs = slices.DeleteFunc(programs, steers)
	}
	d.gone(programs)
	return true
}

// gone are these BPF programs, or will be in a moment.
func (d *daemon) gone(programs []ebpf.ProgramID) {
	d.t.Helper()
	eventually(d.t, "its BPF programs are gone", func() (bool, string) {
		var left []string
		for _, id := range programs {
			p, err := ebpf.NewProgramFromID(id)
			if err == nil {
				left = append(left, p.String())
				p.Close()
			} else if !errors.Is(err, os.ErrNotExist) {
				left = append(left, err.Error())
			}
		}
		return len(left) == 0, strings.Join(left, ", ")
	})
}

// programs that the agent holds: those loaded, attached or not.
func (d *daemon) programs() (ids []ebpf.ProgramID) {
	d.t.Helper()
	names, err := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", d.cmd.Process.Pid))
	if err != nil {
		d.t.Fatal(err)
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			continue // closed meanwhile
		}
		lines := bufio.NewScanner(bytes.NewReader(text))
		for lines.Scan() {
			key, value, _ := strings.Cut(lines.Text(), ":")
			if key != "prog_id" {
				continue
			}
			id, err := strconv.ParseUint(strings.TrimSpace(value), 10, 32)
			if err == nil && !slices.Contains(ids, ebpf.ProgramID(id)) {
				ids = append(ids, ebpf.ProgramID(id))
			}
		}
	}
	if len(ids) == 0 {
		d.t.Error("the agent holds no BPF program: this test looks in the wrong place")
	}
	return ids
}

// whittle runs a command against this agent and returns what it printed.
func (d *daemon) whittle(args ...string) string {
	d.t.Helper()
	out, err := d.try(args...)
	if err != nil {
		d.t.Fatal(err)
	}
	return out
}

func (d *daemon) try(args ...string) (string, error) {
	args = append(slices.Clone(args), "--state", d.state, "--socket", d.socket)
	var stderr strings.Builder
	cmd := exec.Command(d.bin, args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("whittle %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return string(out), err
}

// ask for JSON.
func ask[T any](d *daemon, args ...string) (v T) {
	d.t.Helper()
	out := d.whittle(append(args, "--json")...)
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		d.t.Fatalf("whittle %s: %v in %.500s", strings.Join(args, " "), err, out)
	}
	return v
}

func (d *daemon) status() api.Status { d.t.Helper(); return ask[api.Status](d, "status") }
func (d *daemon) policy(ref string) policy.Policy {
	d.t.Helper()
	return ask[policy.Policy](d, "policy", "show", ref)
}
func (d *daemon) policies() []api.Summary {
	d.t.Helper()
	return ask[[]api.Summary](d, "policy", "list")
}

func (d *daemon) events() []api.Event {
	d.t.Helper()
	return ask[[]api.Event](d, "event", "list", "--limit", "10000")
}

// container waits until the agent shows one as it should be.
func (d *daemon) container(name, what string, ok func(api.Container) bool) (found api.Container) {
	d.t.Helper()
	eventually(d.t, name+" "+what, func() (bool, string) {
		s := d.status()
		for _, c := range s.Containers {
			if c.Name == name && ok(c) {
				found = c
				return true, ""
			}
		}
		return false, fmt.Sprintf("%+v", s)
	})
	return found
}

// forgotten waits until the agent is done with all containers: what they taught is stored.
func (d *daemon) forgotten() {
	d.t.Helper()
	eventually(d.t, "every container is drained", func() (bool, string) {
		s := d.status()
		return len(s.Containers) == 0, fmt.Sprintf("%+v", s.Containers)
	})
}

// service calls of a policy in all phases.
func service(p policy.Policy, abi syscalls.ABI) (all syscalls.Set) {
	if p.ABIs[abi] == nil {
		return all
	}
	for _, set := range p.ABIs[abi].Phases {
		all = all.Union(set)
	}
	return all
}

// balanced tells what a policy's account is short of.
func balanced(t *testing.T, p policy.Policy) {
	t.Helper()
	if !p.Complete || len(p.Partial) > 0 || p.Account.Recorded != p.Account.Drained || p.Account.LateRuns > 0 || p.Account.Recorded == 0 {
		t.Errorf("%s is not complete: %q, %+v", p.Workload.Name(), p.Partial, p.Account)
	}
}
