// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"sigs.k8s.io/yaml"

	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
	"github.com/whittle-sec/whittle/internal/testenv"
)

// ran is how a command of whittle's ended.
type ran struct {
	out, talk string
	status    int
}

// whittle with private state, unless the arguments say otherwise.
func whittle(t *testing.T, stdin string, args ...string) (r ran) {
	t.Helper()
	var out, talk strings.Builder
	cmd := exec.Command(binary(t), args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &talk
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	noCgroups(t, cmd.Process.Pid)
	return ran{out.String(), talk.String(), cmd.ProcessState.ExitCode()}
}

// noCgroups of a run are left.
func noCgroups(t *testing.T, pid int) {
	t.Helper()
	for _, mount := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		if _, err := os.Stat(filepath.Join(mount, "whittle-run-"+strconv.Itoa(pid))); err == nil {
			t.Errorf("the run left its cgroup in %s", mount)
		}
	}
}

func readPolicy(t *testing.T, name string) (p policy.Policy) {
	t.Helper()
	text, err := os.ReadFile(name)
	if err == nil {
		err = json.Unmarshal(text, &p)
	}
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestRunPassesThrough: what a command reads, writes and how it ends is its own, learning and enforced.
func TestRunPassesThrough(t *testing.T) {
	t.Parallel()
	testenv.NeedBPF(t)
	file := filepath.Join(t.TempDir(), "policy.json")
	script := []string{"--", "sh", "-c", "cat; echo err >&2; exit 7"}
	for _, flag := range []string{"--record", "--policy"} {
		r := whittle(t, "in\n", append([]string{"run", flag, file}, script...)...)
		if r.out != "in\n" || r.status != 7 || !strings.HasPrefix(r.talk, "err\n") || strings.Contains(r.talk, "refused") {
			t.Errorf("whittle run %s: %+v", flag, r)
		}
	}
	p := readPolicy(t, file)
	balanced(t, p)
	// A job that never serves has everything in boot.
	for abi, calls := range p.ABIs {
		if calls.Phases[policy.Boot].Empty() {
			t.Errorf("%s: nothing in boot", abi)
		}
		for _, phase := range []policy.Phase{policy.Run, policy.Reload, policy.Stop} {
			if !calls.Phases[phase].Empty() {
				t.Errorf("%s: %v in %s", abi, calls.Phases[phase].Names(abi), phase)
			}
		}
	}
	for _, signal := range []string{"TERM", "KILL", "SEGV"} {
		want := 128 + int(unix.SignalNum("SIG"+signal))
		if r := whittle(t, "", "run", "--record", file, "--", "sh", "-c", "kill -"+signal+" $$"); r.status != want {
			t.Errorf("ended by SIG%s: %+v, want status %d", signal, r, want)
		}
	}
}

// TestInterruptEndsRecording of a command that would run for ever.
func TestInterruptEndsRecording(t *testing.T) {
	t.Parallel()
	testenv.NeedBPF(t)
	for _, tt := range []struct {
		name   string
		script string
		signal os.Signal
		status int
	}{
		{"interrupt", "echo ready; exec sleep 100000", unix.SIGINT, 128 + int(unix.SIGINT)},
		{"terminate", "echo ready; exec sleep 100000", unix.SIGTERM, 128 + int(unix.SIGTERM)},
		{"a signal that the command takes", "trap 'echo taken; exit 3' USR1; echo ready; while :; do sleep 0.05; done", unix.SIGUSR1, 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "policy.json")
			cmd := exec.Command(binary(t), "run", "--record", file, "--", "sh", "-c", tt.script)
			// Not in the foreground of a terminal, as under a service manager.
			cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
				t.Errorf("it said %q, %v", line, err)
			}
			if err := cmd.Process.Signal(tt.signal); err != nil {
				t.Error(err)
			}
			if _, err := io.Copy(io.Discard, out); err != nil {
				t.Error(err)
			}
			_ = cmd.Wait() // its status says it
			if got := cmd.ProcessState.ExitCode(); got != tt.status {
				t.Errorf("exit status %d, want %d", got, tt.status)
			}
			noCgroups(t, cmd.Process.Pid)
			balanced(t, readPolicy(t, file))
		})
	}
}

// TestI386 numbers are learned, exported and enforced as what they are.
func TestI386(t *testing.T) {
	t.Parallel()
	testenv.NeedBPF(t)
	testenv.NeedI386(t)
	bin := compile(t, "i386.c", "-m32")
	file := filepath.Join(t.TempDir(), "policy.json")
	if r := whittle(t, "", "run", "--record", file, "--", bin); r.status != 0 {
		t.Fatalf("%+v", r)
	}
	p := readPolicy(t, file)
	balanced(t, p)
	if got, want := service(p, syscalls.I386), syscalls.SetOf(1, 20); got != want {
		t.Errorf("i386: %v, want %v", got.Names(syscalls.I386), want.Names(syscalls.I386))
	}
	if got := service(p, syscalls.X86_64); !got.Empty() {
		t.Errorf("x86_64: %v", got.Names(syscalls.X86_64))
	}
	if r := whittle(t, "", "run", "--policy", file, "--", bin); r.status != 0 || r.talk != "" {
		t.Errorf("enforced: %+v", r)
	}
	var profile specs.LinuxSeccomp
	if err := json.Unmarshal([]byte(whittle(t, "", "policy", "export", file).out), &profile); err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(profile.Architectures, specs.ArchX86) {
		t.Errorf("exported for %v", profile.Architectures)
	}
}

// TestExportAndAudit of a file: every format and phase, and the keys that scripts rely on.
func TestExportAndAudit(t *testing.T) {
	t.Parallel()
	testenv.NeedBPF(t)
	file := filepath.Join(t.TempDir(), "policy.json")
	if r := whittle(t, "", "run", "--record", file, "--", "ls", "/"); r.status != 0 {
		t.Fatalf("%+v", r)
	}
	var whole specs.LinuxSeccomp
	r := whittle(t, "", "policy", "export", file, "--format", "oci")
	if err := json.Unmarshal([]byte(r.out), &whole); err != nil || whole.DefaultAction != specs.ActErrno {
		t.Errorf("oci: %v: %+v", err, r)
	}
	var stop specs.LinuxSeccomp
	r = whittle(t, "", "policy", "export", file, "--format", "oci", "--phase", "stop")
	if err := json.Unmarshal([]byte(r.out), &stop); err != nil || len(allowedNames(stop)) >= len(allowedNames(whole)) {
		t.Errorf("the stop phase allows %d names, all phases %d; %v", len(allowedNames(stop)), len(allowedNames(whole)), err)
	}
	var object struct {
		APIVersion, Kind string
		Spec             struct{ DefaultAction string }
	}
	r = whittle(t, "", "policy", "export", file, "--format", "spo")
	if err := yaml.Unmarshal([]byte(r.out), &object); err != nil || object.Kind != "SeccompProfile" || object.Spec.DefaultAction != "SCMP_ACT_ERRNO" {
		t.Errorf("spo: %v: %+v", err, r)
	}
	r = whittle(t, "", "policy", "export", file, "--format", "systemd")
	if !strings.Contains(r.out, "[Service]\n") || !strings.Contains(r.out, "\nSystemCallFilter=") || !strings.Contains(r.out, "getdents64") {
		t.Errorf("systemd: %+v", r)
	}
	var score struct {
		Allowed, DefaultAllowed int
		Neutralised, Exposed    []string
	}
	r = whittle(t, "", "audit", file, "--json")
	r.out = strings.ReplaceAll(r.out, "default_allowed", "defaultAllowed")
	if err := json.Unmarshal([]byte(r.out), &score); err != nil {
		t.Fatalf("audit: %v: %+v", err, r)
	}
	if score.Allowed == 0 || score.Allowed >= score.DefaultAllowed || len(score.Neutralised) == 0 || len(score.Exposed) == 0 {
		t.Errorf("audit: %+v", score)
	}
	if r := whittle(t, "", "audit", file, "--min-neutralised", "100000"); r.status != 1 {
		t.Errorf("too few neutralised: %+v", r)
	}
	for _, args := range [][]string{{"policy", "export", file, "--format", "toml"}, {"policy", "export", file, "--phase", "noon"}, {"audit"}, {"run"}} {
		if r := whittle(t, "", args...); r.status != 2 || !strings.Contains(r.talk, "whittle: error: ") || r.out != "" {
			t.Errorf("%q: %+v", args, r)
		}
	}
}

func allowedNames(p specs.LinuxSeccomp) (names []string) {
	for _, entry := range p.Syscalls {
		if entry.Action == specs.ActAllow {
			names = append(names, entry.Names...)
		}
	}
	return names
}
