// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/whittle-sec/whittle/internal/image"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
	"github.com/whittle-sec/whittle/internal/testenv"
	"github.com/whittle-sec/whittle/testbed/bedtest"
)

// marks are rare calls, at these seconds of a process's life.
var marks = []struct {
	call   string
	second int
}{
	{"getsid", 0}, {"getpgrp", 3}, {"sched_getparam", 11}, {"getrusage", 29}, {"sysinfo", 47}, {"times", 71}, {"getpriority", 100},
}

// TestTimedMarkers: the kernel's counts, the stored policy and the exported profile agree to the call.
func TestTimedMarkers(t *testing.T) {
	t.Parallel()
	testenv.NeedBPF(t)
	testenv.NeedPodman(t)
	var list []string
	want := syscalls.Set{}
	for _, m := range marks {
		list = append(list, fmt.Sprintf("{__NR_%s,%d}", m.call, m.second))
		nr, ok := syscalls.Number(syscalls.X86_64, m.call)
		if !ok {
			t.Fatalf("no call %s", m.call)
		}
		want.Add(nr)
	}
	for _, name := range []string{"clock_nanosleep", "exit_group"} {
		nr, _ := syscalls.Number(syscalls.X86_64, name)
		want.Add(nr)
	}
	// Of crun's floor all is known; of runc's, which has a Go scheduler's calls in it, nobody can say it in advance.
	testenv.NeedRuntime(t, "crun")
	e := bedtest.Up(t, "crun")
	d := startAgent(t, "--podman", e.Socket(), "--hooks-dir", e.HooksDir())
	probe := program(t, compile(t, "markers.c", "-DMARKS="+strings.Join(list, ",")), "markers")
	config := image.Config{Name: "localhost/markers:e2e"}
	config.Entrypoint = []string{"/markers"}
	bedtest.Load(t, e, config, []image.File{probe, image.Dir("proc", 0o555), image.Dir("sys", 0o555), image.Dir("dev", 0o755), image.Dir("etc", 0o755)})
	bedtest.Podman(t, e, "run", "--name", "markers", "--network", "none", config.Name) // until its end
	d.forgotten()
	p := d.policy("markers")
	balanced(t, p)
	calls := p.ABIs[syscalls.X86_64]
	if got := service(p, syscalls.X86_64); got != want {
		t.Errorf("learned %v, want %v", got.Names(syscalls.X86_64), want.Names(syscalls.X86_64))
	}
	for call, want := range map[string]string{"sysinfo": "is allowed", "setgroups": "is in the floor", "mount": "is refused"} {
		if got := d.whittle("policy", "explain", "markers", call); !strings.Contains(got, call+" "+want) {
			t.Errorf("policy explain %s: %s", call, got)
		}
	}
	for i, m := range marks {
		nr, _ := syscalls.Number(syscalls.X86_64, m.call)
		e := calls.Evidence[nr]
		// Sleeping takes no less than it should. A call is seen in an epoch, which begins when the agent gets to it: a second or
		// two before the call, or more on a busy machine.
		earliest := time.Duration(marks[max(i-1, 0)].second) * time.Second
		phases := slices.DeleteFunc(e.Phases[:], func(n uint64) bool { return n == 0 })
		if e.Count != 1 || e.Runs != 1 || len(phases) != 1 || e.FirstSeen < earliest || strings.Join(e.Lanes, " ") != "service" {
			t.Errorf("%s at second %d: %+v", m.call, m.second, e)
		}
	}
	exported(t, d, p, want)
}

// exported profile: what was learned, the runtime's floor and the kernel's own, and nothing else.
func exported(t *testing.T, d *daemon, p policy.Policy, learned syscalls.Set) {
	t.Helper()
	var profile specs.LinuxSeccomp
	if err := json.Unmarshal([]byte(d.whittle("policy", "export", p.Workload.ID())), &profile); err != nil {
		t.Fatal(err)
	}
	var got syscalls.Set
	for _, entry := range profile.Syscalls {
		if entry.Action != specs.ActAllow {
			continue
		}
		for _, name := range entry.Names {
			nr, ok := syscalls.Number(syscalls.X86_64, name)
			if !ok {
				t.Errorf("the profile names %s", name)
			}
			got.Add(nr)
		}
	}
	want := learned.Union(p.ABIs[syscalls.X86_64].Floor).Union(syscalls.KernelOwn(syscalls.X86_64)).Union(
		// For podman exec, whether or not there was one.
		numbers(t, "openat", "newfstatat", "ioctl", "statx", "read", "setgroups", "fchown", "umask"))
	if got != want {
		t.Errorf("exported %v, want %v", got.Names(syscalls.X86_64), want.Names(syscalls.X86_64))
	}
	if profile.DefaultAction != specs.ActErrno || len(profile.Architectures) != 1 || profile.Architectures[0] != specs.ArchX86_64 {
		t.Errorf("exported %s for %v", profile.DefaultAction, profile.Architectures)
	}
}
