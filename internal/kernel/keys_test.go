// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// A container may make cgroups below its own; what runs there is still the container.
func TestCgroupsBelowBelongToTheContainer(t *testing.T) {
	o := open(t)
	g := newCgroup(t)
	t.Cleanup(func() { os.Remove(g.dir + "/a/b"); os.Remove(g.dir + "/a") })
	script := fmt.Sprintf("mkdir %[1]s/a && mkdir %[1]s/a/b && echo $$ >%[1]s/a/b/cgroup.procs && exec %[2]s", g.dir,
		buildC(t, "every.c", "-static", "-nostdlib", "-fno-pie", "-no-pie", "-fno-stack-protector", "-DNUMBERS=124"))
	trace := learn(t, o, g, g.command("sh", "-c", script))
	if !made(trace, observe.LaneService)[syscalls.X86_64].Has(getsid.Nr) {
		t.Error("a call from a cgroup below was not learned")
	}
}

// A rootless container has no cgroup of its own on some hosts: its mount namespace is the key then.
func TestMountNamespaceIsTheKey(t *testing.T) {
	o := open(t)
	bin := buildC(t, "every.c", "-static", "-nostdlib", "-fno-pie", "-no-pie", "-fno-stack-protector", "-DNUMBERS=124")
	trace := inMountNS(t, o, "exec "+bin)
	balanced(t, trace)
	if got, want := made(trace, observe.LaneService)[syscalls.X86_64], syscalls.SetOf(getsid.Nr, 231); got != want {
		t.Errorf("learned %v, want getsid and exit_group", got.Names(syscalls.X86_64))
	}
	if n := *o.shared.mountNSKeys; n != 0 {
		t.Errorf("%d mount namespace keys are left", n)
	}
	// What leaves it is not seen, and that is said.
	for _, leave := range []string{"unshare -m ", fmt.Sprintf("nsenter -t %d -m ", os.Getpid())} {
		trace = inMountNS(t, o, "exec "+leave+bin)
		if made(trace, observe.LaneService)[syscalls.X86_64].Has(getsid.Nr) {
			t.Errorf("%s: seen after all: the gap is none", leave)
		}
		if !slices.Contains(trace.Account.Gaps, gapLeft) {
			t.Errorf("%s: the account is %+v, without the gap", leave, trace.Account)
		}
	}
	if trace = inMountNS(t, o, "exec unshare -n "+bin); slices.Contains(trace.Account.Gaps, gapLeft) {
		t.Error("a network namespace is taken for a mount namespace")
	}
}

// inMountNS observes a shell in a mount namespace, and in no cgroup of its own, from its script on to its end.
func inMountNS(t *testing.T, o *Observer, script string) observe.Trace {
	t.Helper()
	cmd := exec.Command("unshare", "-m", "sh", "-c", "echo; read go; "+script)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(fmt.Sprintf("/proc/%d/ns/mnt", cmd.Process.Pid), &st); err != nil {
		t.Fatal(err)
	}
	id, err := o.Observe(Target{MountNS: st.Ino})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(in, "\n"); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // how it ends is the program's business
	trace, err := o.Finish(id, true)
	if err != nil {
		t.Fatal(err)
	}
	return trace
}

func TestErrors(t *testing.T) {
	o := open(t)
	if _, err := o.Observe(Target{CgroupID: 1}); err == nil {
		t.Error("the root cgroup was taken for a container's")
	}
	id, err := o.Observe(Target{CgroupID: 1 << 50})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := o.Observe(Target{CgroupID: 1 << 50}); err == nil {
		t.Error("one cgroup was observed twice")
	}
	if _, err := o.Finish(id, true); err != nil {
		t.Fatal(err)
	}
	if _, err := o.Trace(id); err == nil {
		t.Error("a finished container has a trace")
	}
	if _, err := o.Observe(Target{CgroupID: 1 << 50}); err != nil {
		t.Errorf("a cgroup cannot be observed again: %v", err)
	}
	for id := range o.containers {
		if _, err := o.Finish(id, true); err != nil {
			t.Fatal(err)
		}
	}
}
