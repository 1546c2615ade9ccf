// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/image"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
	"github.com/whittle-sec/whittle/internal/testenv"
	"github.com/whittle-sec/whittle/testbed"
	"github.com/whittle-sec/whittle/testbed/bedtest"
)

const lanesImage = "localhost/lanes:e2e"

func numbers(t *testing.T, names ...string) (set syscalls.Set) {
	t.Helper()
	for _, name := range names {
		nr, ok := syscalls.Number(syscalls.X86_64, name)
		if !ok {
			t.Fatalf("no call %s", name)
		}
		set.Add(nr)
	}
	return set
}

// TestLanes: what podman exec and the runtime do is learned apart from the service, under both runtimes.
func TestLanes(t *testing.T) {
	for _, runtime := range []string{"runc", "crun"} {
		t.Run(runtime, func(t *testing.T) {
			testenv.NeedBPF(t)
			testenv.NeedPodman(t)
			testenv.NeedRuntime(t, runtime)
			e := bedtest.Up(t, runtime)
			d := startAgent(t, "--podman", e.Socket(), "--hooks-dir", e.HooksDir())
			config := image.Config{Name: lanesImage}
			config.Entrypoint = []string{"/service"}
			bedtest.Load(t, e, config, []image.File{
				image.Dir("proc", 0o555), image.Dir("sys", 0o555), image.Dir("dev", 0o755), image.Dir("etc", 0o755),
				program(t, compile(t, "markers.c", "-DMARKS={__NR_getpgrp,0},{__NR_getrusage,100000}"), "service"),
				program(t, compile(t, "markers.c", "-DMARKS={__NR_sysinfo,0},{__NR_getsid,0},{__NR_times,0}"), "probe"),
			})
			t.Run("join", func(t *testing.T) { joins(t, e, d.as(t)) })
			t.Run("join with no_new_privs", func(t *testing.T) { joins(t, e, d.as(t), "--security-opt", "no-new-privileges") })
			t.Run("exec", func(t *testing.T) { execLane(t, e, d.as(t)) })
			t.Run("floor", func(t *testing.T) { floors(t, e, d.as(t), runtime) })
		})
	}
}

// joins: podman exec starts under a policy that was learned without one, and is refused what the service does not make.
func joins(t *testing.T, e *testbed.Env, d *daemon, flags ...string) {
	start := func(name string, more ...string) {
		t.Helper()
		args := slices.Concat([]string{"run", "--detach", "--network", "none", "--name", name}, flags, more)
		bedtest.Podman(t, e, append(append(args, lanesImage), flags...)...) // as arguments, they make it another workload
	}
	start("alone")
	c := d.container("alone", "sleeps", func(c api.Container) bool { return c.Distinct == 2 })
	bedtest.Podman(t, e, "rm", "--force", "--time", "0", "alone")
	d.forgotten()
	profile := filepath.Join(t.TempDir(), "profile.json")
	if err := os.WriteFile(profile, []byte(d.whittle("policy", "export", c.WorkloadID)), 0o600); err != nil {
		t.Fatal(err)
	}
	before := len(refusals(t, d))
	start("joined", "--security-opt", "seccomp="+profile)
	out, err := e.Run(t.Context(), "exec", "joined", "/probe")
	bedtest.Podman(t, e, "rm", "--force", "--time", "0", "joined")
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
	d.forgotten()
	var refused []string
	for _, r := range refusals(t, d)[before:] {
		if r.Lane == "exec" && r.Comm == "probe" {
			refused = append(refused, r.Call)
		} else {
			t.Errorf("refused: %+v", r)
		}
	}
	if slices.Sort(refused); !slices.Equal(refused, []string{"getsid", "sysinfo", "times"}) {
		t.Errorf("refused: %q", refused)
	}
}

func execLane(t *testing.T, e *testbed.Env, d *daemon) {
	bedtest.Podman(t, e, "run", "--detach", "--network", "none", "--name", "lanes", lanesImage)
	c := d.container("lanes", "sleeps", func(c api.Container) bool { return c.Distinct == 2 })
	bedtest.Podman(t, e, "exec", "lanes", "/probe")
	bedtest.Podman(t, e, "kill", "--signal", "KILL", "lanes")
	d.forgotten()
	p := d.policy(c.WorkloadID)
	balanced(t, p)
	if got, want := service(p, syscalls.X86_64), numbers(t, "getpgrp", "clock_nanosleep"); got != want {
		t.Errorf("the service's: %v, want %v", got.Names(syscalls.X86_64), want.Names(syscalls.X86_64))
	}
	if got, want := p.ABIs[syscalls.X86_64].Exec, numbers(t, "sysinfo", "getsid", "times", "exit_group"); got != want {
		t.Errorf("exec's: %v, want %v", got.Names(syscalls.X86_64), want.Names(syscalls.X86_64))
	}
}

// floors are learned with and without no_new_privs, and are enough to start under.
func floors(t *testing.T, e *testbed.Env, d *daemon, runtime string) {
	floor, refusedBefore := map[bool]syscalls.Set{}, len(refusals(t, d))
	for _, nnp := range []bool{true, false} {
		// The argument means nothing to the program, and makes it a workload of its own.
		argument := fmt.Sprintf("nnp=%v", nnp)
		run := func(flags ...string) {
			t.Helper()
			flags = append([]string{"run", "--rm", "--network", "none", "--entrypoint", "/probe"}, flags...)
			if nnp {
				flags = append(flags, "--security-opt", "no-new-privileges")
			}
			bedtest.Podman(t, e, append(flags, lanesImage, argument)...)
		}
		const learned, enforced = 3, 8
		for range learned {
			run()
		}
		d.forgotten()
		p := only(t, d, func(s api.Summary) bool { return slices.Contains(s.Command, argument) })
		balanced(t, p)
		floor[nnp] = p.ABIs[syscalls.X86_64].Floor
		t.Logf("%s, no_new_privs %v: %d calls: %v", runtime, nnp, floor[nnp].Len(), floor[nnp].Names(syscalls.X86_64))
		if !numbers(t, "execve").Minus(floor[nnp]).Empty() {
			t.Error("the floor has no execve")
		}
		if got, want := service(p, syscalls.X86_64), numbers(t, "sysinfo", "getsid", "times", "exit_group"); got != want {
			t.Errorf("the service's: %v, want %v", got.Names(syscalls.X86_64), want.Names(syscalls.X86_64))
		}
		profile := filepath.Join(t.TempDir(), "profile.json")
		if err := os.WriteFile(profile, []byte(d.whittle("policy", "export", p.Workload.ID())), 0o600); err != nil {
			t.Fatal(err)
		}
		for range enforced {
			run("--security-opt", "seccomp="+profile)
		}
		d.forgotten()
		for _, r := range refusals(t, d)[refusedBefore:] {
			t.Errorf("refused: %+v", r)
		}
		if after := d.policy(p.Workload.ID()); after.Account.Runs != learned {
			t.Errorf("%d runs were learned from, want %d: the others were enforced", after.Account.Runs, learned)
		}
	}
	// Without no_new_privs the runtime changes users and capabilities after it has loaded the filter.
	if missing := numbers(t, "capset").Minus(floor[false].Minus(floor[true])); !missing.Empty() {
		t.Errorf("without no_new_privs the runtime needs %v more", floor[false].Minus(floor[true]).Names(syscalls.X86_64))
	}
}

// only policy that is as it should be.
func only(t *testing.T, d *daemon, ok func(api.Summary) bool) policy.Policy {
	t.Helper()
	all := slices.DeleteFunc(d.policies(), func(s api.Summary) bool { return !ok(s) })
	if len(all) != 1 {
		t.Fatalf("%d policies: %+v", len(all), all)
	}
	return d.policy(all[0].ID)
}
