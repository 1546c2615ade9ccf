// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
	"github.com/whittle-sec/whittle/internal/testenv"
	"github.com/whittle-sec/whittle/testbed"
	"github.com/whittle-sec/whittle/testbed/bedtest"
)

// loop serves nobody until it is told to stop.
var loop = []string{bedtest.Busybox, "sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"}

func needBusybox(t *testing.T) *testbed.Env {
	t.Helper()
	t.Parallel() // these tests mostly wait
	testenv.NeedBPF(t)
	testenv.NeedPodman(t)
	testenv.NeedTool(t, "busybox")
	e := bedtest.Up(t, "")
	bedtest.LoadBusybox(t, e)
	return e
}

func runLoop(t *testing.T, e *testbed.Env, name string) {
	t.Helper()
	bedtest.Podman(t, e, append([]string{"run", "--detach", "--network", "none", "--name", name}, loop...)...)
}

func learning(c api.Container) bool { return c.Mode == api.Learning && c.Distinct > 0 }

// TestKilledAgent: the containers go on, nothing stays in the kernel, and the next agent makes the best of what still runs.
func TestKilledAgent(t *testing.T) {
	e := needBusybox(t)
	flags := []string{"--podman", e.Socket(), "--hooks-dir", e.HooksDir()}
	d := startAgent(t, flags...)
	runLoop(t, e, "survivor")
	if c := d.container("survivor", "is learned from", learning); c.Late {
		t.Errorf("%+v", c)
	}
	if !d.end(unix.SIGKILL) {
		t.Fatal("the agent had ended before")
	}
	if state := bedtest.Podman(t, e, "inspect", "--format", "{{.State.Status}}", "survivor"); state != "running" {
		t.Errorf("without the agent, its container is %s", state)
	}
	// No agent keeps no container from starting, nor from ending.
	if out := bedtest.Podman(t, e, "run", "--rm", "--network", "none", bedtest.Busybox, "/bin/busybox", "echo", "unobserved"); out != "unobserved" {
		t.Errorf("a container without an agent said %q", out)
	}
	d.start(flags...)
	c := d.container("survivor", "is found again", learning)
	if !c.Late {
		t.Errorf("it ran before the agent did: %+v", c)
	}
	bedtest.Podman(t, e, "stop", "survivor")
	d.forgotten()
	p := d.policy(c.WorkloadID)
	if p.Complete || p.Account.LateRuns != 1 || len(p.Partial) == 0 {
		t.Errorf("a container of which the start was missed: complete %v, %q, %+v", p.Complete, p.Partial, p.Account)
	}
	if p.ABIs[syscalls.X86_64].Phases[policy.Stop].Empty() {
		t.Error("its stop was not learned")
	}
	// Another workload is learned from as ever.
	bedtest.Podman(t, e, "run", "--rm", "--network", "none", bedtest.Busybox, "/bin/busybox", "true")
	d.forgotten()
	balanced(t, only(t, d, func(s api.Summary) bool { return strings.HasSuffix(strings.Join(s.Command, " "), " true") }))
}

// TestStoppedAgent stores what it learned, and says that it did not see the end.
func TestStoppedAgent(t *testing.T) {
	e := needBusybox(t)
	d := startAgent(t, "--podman", e.Socket(), "--hooks-dir", e.HooksDir())
	runLoop(t, e, "survivor")
	c := d.container("survivor", "is learned from", learning)
	d.stop()
	p := d.policy(c.WorkloadID) // from the store
	if p.Complete || !strings.Contains(strings.Join(p.Partial, " "), "the agent was stopped") || p.Account.Runs != 1 {
		t.Errorf("complete %v, %q, %+v", p.Complete, p.Partial, p.Account)
	}
	if got := service(p, syscalls.X86_64).Len(); got < c.Distinct {
		t.Errorf("%d calls were stored of %d that were seen", got, c.Distinct)
	}
	bedtest.Podman(t, e, "stop", "survivor")
}

// TestHookOfHungAgent: a socket on which nobody answers does not keep a container from starting.
func TestHookOfHungAgent(t *testing.T) {
	e := needBusybox(t)
	d := startAgent(t, "--podman", "", "--hooks-dir", e.HooksDir())
	d.end(unix.SIGKILL) // so that its hooks stay
	if err := os.Remove(d.socket); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", d.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if out := bedtest.Podman(t, e, "run", "--rm", "--network", "none", bedtest.Busybox, "/bin/busybox", "echo", "unobserved"); out != "unobserved" {
		t.Errorf("the container said %q", out)
	}
}

// TestDiesWhileRegistered: containers that end before, during and right after their registration.
func TestDiesWhileRegistered(t *testing.T) {
	e := needBusybox(t)
	d := startAgent(t, "--podman", e.Socket(), "--hooks-dir", e.HooksDir())
	run := func(args ...string) error {
		_, err := e.Run(t.Context(), append([]string{"run", "--rm", "--network", "none"}, args...)...)
		return err
	}
	if err := run("--entrypoint", "/no/such/program", bedtest.Busybox); err == nil {
		t.Error("a program that does not exist was executed")
	}
	killer := `{"version": "1.0.0", "hook": {"path": "/bin/sh", "args": ["sh", "-c",
		"kill -9 $(sed 's/.*\"pid\": *\\([0-9]*\\).*/\\1/')"]}, "when": {"always": true}, "stages": ["createRuntime"]}`
	// Hooks are called in the order of their files' names.
	for _, name := range []string{"before.json", "zafter.json"} {
		file := filepath.Join(e.HooksDir(), name)
		if err := os.WriteFile(file, []byte(killer), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := run(bedtest.Busybox, "/bin/busybox", "true"); err == nil {
			t.Errorf("%s: the container whose init was killed has succeeded", name)
		}
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
	}
	d.forgotten()
	if err := run(bedtest.Busybox, "/bin/busybox", "true"); err != nil {
		t.Error(err)
	}
	d.forgotten()
	if s := d.status(); len(s.Problems) > 0 {
		t.Errorf("problems: %q", s.Problems)
	}
	p := only(t, d, func(s api.Summary) bool { return strings.HasSuffix(strings.Join(s.Command, " "), " true") })
	if nr := uint32(231); p.ABIs[syscalls.X86_64].Evidence[nr].Runs != 1 { // exit_group
		t.Errorf("the container that ran: %+v", p.ABIs[syscalls.X86_64].Evidence[nr])
	}
}

// TestTwoAgents on one host see the same containers and do not see each other.
func TestTwoAgents(t *testing.T) {
	e := needBusybox(t)
	hooked := startAgent(t, "--podman", e.Socket(), "--hooks-dir", e.HooksDir())
	listed := startAgent(t, "--podman", e.Socket())
	runLoop(t, e, "both")
	a := hooked.container("both", "is learned from", learning)
	b := listed.container("both", "is learned from", learning)
	if a.Late || !b.Late || a.WorkloadID != b.WorkloadID {
		t.Errorf("with a hook: late %v; from the engine: late %v", a.Late, b.Late)
	}
	for _, args := range [][]string{{"--state", hooked.state, "--socket", listed.socket + "2"}, {"--state", listed.state + "2", "--socket", hooked.socket}} {
		out, err := exec.Command(hooked.bin, append([]string{"agent", "--podman", ""}, args...)...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), fmt.Sprintf("another agent is running, with pid %d", hooked.cmd.Process.Pid)) {
			t.Errorf("a second agent with %q: %v: %s", args, err, out)
		}
	}
	hooked.stop()
	bedtest.Podman(t, e, "stop", "both")
	listed.forgotten()
	p := listed.policy(b.WorkloadID)
	if p.Account.LateRuns != 1 || len(p.Account.Gaps) > 0 || p.ABIs[syscalls.X86_64].Phases[policy.Stop].Empty() {
		t.Errorf("the end of the other agent was felt: %+v", p.Account)
	}
	if q := hooked.policy(a.WorkloadID); q.Account.LateRuns != 1 || len(q.Partial) != 1 {
		t.Errorf("the first agent's: %+v", q.Account)
	}
}

// TestNobody gets told what is missing.
func TestNobody(t *testing.T) {
	t.Parallel()
	testenv.NeedBPF(t)
	d := startAgent(t, "--podman", "")
	dir := t.TempDir()
	for _, args := range [][]string{
		{"agent", "--state", dir, "--socket", dir + "/s"},
		{"run", "--record", dir + "/policy.json", "--", "true"},
		{"run", "--state", dir, "--", "true"},
		{"status", "--socket", d.socket},
		{"policy", "list", "--state", d.state, "--socket", d.socket},
	} {
		cmd := exec.Command(d.bin, args...)
		cmd.Dir = "/"
		cmd.SysProcAttr = &unix.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		out, err := cmd.CombinedOutput()
		text := string(out)
		if err == nil || cmd.ProcessState.ExitCode() != 1 || !strings.HasPrefix(text, "whittle: error: ") || !strings.Contains(text, "\nwhittle: hint: ") {
			t.Errorf("whittle %s as nobody: %v: %s", strings.Join(args, " "), err, text)
		}
	}
}
