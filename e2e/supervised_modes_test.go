// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
	"github.com/whittle-sec/whittle/testbed"
	"github.com/whittle-sec/whittle/testbed/bedtest"
)

// mode of one workload.
func (d *daemon) mode(workload string) api.ModeState {
	d.t.Helper()
	all := ask[[]api.ModeState](d, "policy", "mode", workload)
	if len(all) != 1 {
		d.t.Fatalf("the modes of %s: %+v", workload, all)
	}
	return all[0]
}

// reaches waits until a workload has come to a mode, by itself.
func (d *daemon) reaches(workload string, mode api.WorkloadMode, waits int) api.ModeState {
	d.t.Helper()
	for range waits - 1 { // for settling, one patience is not enough
		for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(glance) {
			if s := d.mode(workload); s.Now == mode {
				return s
			}
		}
	}
	var s api.ModeState
	eventually(d.t, fmt.Sprintf("%s is in %s", workload, mode), func() (bool, string) {
		s = d.mode(workload)
		return s.Now == mode, fmt.Sprintf("%+v, %+v", s, d.status().Containers)
	})
	return s
}

func serviceLoad(t *testing.T, port string) *load {
	t.Helper()
	return startLoad(t, 1, func(context.Context, int) error {
		time.Sleep(10 * time.Millisecond)
		if r, err := tryService(port, "w socket"); err != nil || r != 0 {
			return fmt.Errorf("socket: %d, %w", r, err)
		}
		return nil
	})
}

// TestSupervisedAuto: a container that settles goes to shadow and then to enforcing by itself, while it runs.
func TestSupervisedAuto(t *testing.T) {
	t.Parallel()
	const shadow = 20 * time.Second // the first would-deny has to come in it, on a slow machine, too
	e, d := supervisedBed(t, "", "--mode", "auto", "--shadow-time", shadow.String())
	loadService(t, e)
	port := freePort(t)
	id := learnService(t, e, d, port, "learner")
	// The agent sets no_new_privs by itself only where nothing is executed.
	startService(t, e, port, "auto", "--security-opt", "no-new-privileges")
	tell(t, port, "m execve")
	l := serviceLoad(t, port)
	if s := d.mode(id); s.Mode != api.ModeAuto || s.Now != api.ModeLearn || s.Next == "" {
		t.Errorf("before it has settled: %+v", s)
	}
	d.reaches(id, api.ModeShadow, 3)
	if c := d.supervised("auto", api.ModeShadow, policy.Run); c.Supervision.How != "attach" {
		t.Errorf("it was brought under supervision by %q", c.Supervision.How)
	}
	l.goOn(20)
	asked := time.Now()
	if got := tell(t, port, "w bind"); got != -int(unix.EBADF) {
		t.Errorf("bind in shadow returned %d", got)
	}
	c := d.container("auto", "has a would-deny", func(c api.Container) bool { return c.Supervision != nil && c.Supervision.WouldDeny == 1 })
	if c.Supervision.Denied != 0 {
		t.Errorf("shadow refused: %+v", c.Supervision)
	}
	if out := d.whittle("status", "auto"); !strings.Contains(out, "would") || !strings.Contains(out, "bind") {
		t.Errorf("status does not show what would have been refused:\n%s", out)
	}
	var s api.ModeState
	eventually(t, "it is counted for the workload, too", func() (bool, string) { // what status counts has yet to be told
		s = d.mode(id)
		return s.WouldDeny == 1, fmt.Sprintf("%+v", s)
	})
	if s.Now != api.ModeShadow || s.ShadowSince.Before(asked) {
		t.Errorf("after a would-deny: %+v, asked at %s", s, asked)
	}
	if s := d.reaches(id, api.ModeEnforce, 1); s.Since.Sub(asked) < shadow {
		t.Errorf("a would-deny did not restart the time of shadow: %+v, asked at %s", s, asked)
	}
	d.supervised("auto", api.ModeEnforce, policy.Run)
	l.goOn(20)
	answers{{"w bind", unix.EPERM, "enforced"}, {"m execve", unix.ENOENT, "the master does it"}, {"w execve", unix.EPERM, "only the master does it"}}.check(t, port)
	d.asIntended("auto")
	l.goOn(20)
	l.end()
	bedtest.Podman(t, e, "stop", "--time", "20", "auto")
	exited(t, e, "auto")
	d.forgotten()
}

// TestSupervisedByHand: modes, grants, opting out, podman exec and seals, of workloads that were learned before.
func TestSupervisedByHand(t *testing.T) {
	t.Parallel()
	e, d := supervisedBed(t, "")
	loadService(t, e)
	port := freePort(t)
	id := learnService(t, e, d, port, "learner")
	learned := service(d.policy(id), syscalls.X86_64).Minus(syscalls.KernelOwn(syscalls.X86_64))
	t.Run("switch", func(t *testing.T) { switchesModes(t, e, d.as(t), port, id) })
	t.Run("exec", func(t *testing.T) { execsAreHeld(t, e, d.as(t), port, id) })
	t.Run("own mode", func(t *testing.T) { ownModes(t, e, d.as(t), port, id) })
	t.Run("attach", func(t *testing.T) { attaches(t, e, d.as(t), port, id) })
	t.Run("seal", func(t *testing.T) { seals(t, e, d.as(t), port, id) })
	if after := service(d.policy(id), syscalls.X86_64).Minus(syscalls.KernelOwn(syscalls.X86_64)); after != learned {
		t.Errorf("the service's policy was %v and is %v", learned.Names(syscalls.X86_64), after.Names(syscalls.X86_64))
	}
}

func remove(t *testing.T, e *testbed.Env, d *daemon, name string) {
	t.Helper()
	bedtest.Podman(t, e, "stop", "--time", "20", name)
	exited(t, e, name)
	bedtest.Podman(t, e, "rm", name)
	d.forgotten()
}

// switchesModes of a running container, which has them, and what is allowed and denied by hand, at once.
func switchesModes(t *testing.T, e *testbed.Env, d *daemon, port, id string) {
	d.whittle("policy", "mode", id, "enforce")
	startService(t, e, port, "switched")
	d.supervised("switched", api.ModeEnforce, policy.Run)
	refused, passes := answers{{"w setns", unix.EPERM, "enforced"}}, answers{{"w setns", unix.EBADF, "let through"}}
	refused.check(t, port)
	for range 3 {
		d.whittle("policy", "mode", id, "shadow")
		passes.check(t, port)
		d.whittle("policy", "mode", id, "enforce")
		refused.check(t, port)
		d.whittle("policy", "allow", id, "setns")
		passes.check(t, port)
		d.whittle("policy", "deny", id, "setns")
		refused.check(t, port)
	}
	d.whittle("policy", "mode", id, "learn")
	passes.check(t, port)
	d.whittle("policy", "mode", id, "off")
	passes.check(t, port)
	d.whittle("policy", "mode", id, "enforce")
	refused.check(t, port)
	d.whittle("policy", "deny", id, "setns")
	refused.check(t, port)
	remove(t, e, d, "switched")
}

// execsAreHeld: a shell in the container works, can do nothing that the service cannot, and teaches nothing.
func execsAreHeld(t *testing.T, e *testbed.Env, d *daemon, port, id string) {
	d.whittle("policy", "mode", id, "enforce")
	startService(t, e, port, "entered", "--volume", compile(t, "attack.c")+":/attack")
	d.supervised("entered", api.ModeEnforce, policy.Run)
	for _, tt := range []struct{ script, want string }{
		{"echo $((6 * 7))", "42"},
		{"busybox id -u; busybox ls / | busybox grep -c bin", "0\n1"},
		{"busybox ps | busybox grep -c '[/]service'", "2"},
		{"echo x >/tmp/x; busybox cat /tmp/x; busybox sleep 0.1; (exit 3); echo $?", "x\n3"},
		{"busybox unshare -U busybox true 2>/dev/null || echo no", "no"},
	} {
		if out, err := e.Run(t.Context(), "exec", "entered", "/bin/sh", "-c", tt.script); err != nil || out != tt.want {
			t.Errorf("%s: %v: %q, want %q", tt.script, err, out, tt.want)
		}
	}
	for line := range strings.Lines(bedtest.Podman(t, e, "exec", "entered", "/attack")) {
		var call string
		var result int
		// With other arguments the service makes sockets.
		if _, err := fmt.Sscan(line, &call, &result); err != nil || result != -int(unix.EPERM) && result != -int(unix.ENOSYS) && call != "socket" {
			t.Errorf("podman exec of the attacker: %s (%v)", line, err)
		}
	}
	eventually(t, "the attacker's calls are in the journal", func() (bool, string) {
		var found []string
		for _, l := range d.heldLines("refused") {
			if l.Lane == "exec" && l.Comm == "attack" {
				found = append(found, l.Call)
			}
		}
		return slices.Contains(found, "unshare") && slices.Contains(found, "bpf"), fmt.Sprint(found)
	})
	answers{{"w execve", unix.EPERM, "an exec gives the service nothing"}, {"w unshare", unix.EPERM, "nobody does it"}}.check(t, port)
	remove(t, e, d, "entered")
}

// ownModes of containers, by label and by annotation, whatever their workload's is.
func ownModes(t *testing.T, e *testbed.Env, d *daemon, port, id string) {
	d.whittle("policy", "mode", id, "enforce")
	d.whittle("policy", "deny", id, "connect") // or the panel gives it to the service, until its label is seen
	for _, flag := range []string{"--annotation", "--label"} {
		startService(t, e, port, "out", flag, "io.whittle.mode=off")
		eventually(t, flag+" io.whittle.mode=off: it may do what it likes", func() (bool, string) {
			r := tell(t, port, "w connect")
			return r == -int(unix.EBADF), fmt.Sprint(r)
		})
		if flag == "--annotation" {
			for _, c := range d.status().Containers {
				t.Errorf("%s: the agent knows %+v", flag, c)
			}
		}
		remove(t, e, d, "out")
	}
	startService(t, e, port, "shadowed", "--annotation", "io.whittle.mode=shadow")
	d.supervised("shadowed", api.ModeShadow, policy.Run)
	answers{{"w listen", unix.EBADF, "shadow refuses nothing"}}.check(t, port)
	remove(t, e, d, "shadowed")
}

// attaches to a container that was started without a filter, while it serves.
func attaches(t *testing.T, e *testbed.Env, d *daemon, port, id string) {
	d.whittle("policy", "mode", id, "learn")
	startService(t, e, port, "attached")
	l := serviceLoad(t, port)
	d.container("attached", "serves", func(c api.Container) bool { return c.Phase == policy.Run })
	dry := ask[api.AttachResult](d, "attach", "attached", "--dry-run")
	if !dry.DryRun || !dry.Complete || len(dry.Processes) != 2 {
		t.Errorf("attach --dry-run: %+v", dry)
	}
	if c := d.container("attached", "is there", func(api.Container) bool { return true }); c.Supervision != nil {
		t.Errorf("--dry-run changed %+v", c.Supervision)
	}
	r := ask[api.AttachResult](d, "attach", "attached", "--mode", "shadow")
	if !r.Complete || len(r.Processes) != 2 || r.Listeners == 0 || r.Paused <= 0 {
		t.Errorf("attach: %+v", r)
	}
	d.supervised("attached", api.ModeShadow, policy.Run)
	l.goOn(20)
	answers{{"w listen", unix.EBADF, "shadow"}}.check(t, port)
	d.whittle("policy", "mode", id, "enforce")
	answers{
		{"w bind", unix.EPERM, "boot only"}, {"w execve", unix.EPERM, "only the master does it"}, {"m execve", unix.ENOENT, "the master does it"},
		{"w setuid", unix.EPERM, "only while it is starting"},
	}.check(t, port)
	d.asIntended("attached")
	l.goOn(20)
	l.end()
	bedtest.Podman(t, e, "kill", "--signal", "HUP", "attached")
	eventually(t, "a new worker is born under the filter", func() (bool, string) {
		r, err := tryService(port, "w socket")
		return err == nil && r == 0, fmt.Sprint(r, err)
	})
	remove(t, e, d, "attached")
}

// seals a container for good: what it is refused is seen all the same.
func seals(t *testing.T, e *testbed.Env, d *daemon, port, id string) {
	d.whittle("policy", "mode", id, "learn")
	startService(t, e, port, "sealed")
	d.container("sealed", "serves", func(c api.Container) bool { return c.Phase == policy.Run })
	if r := ask[api.AttachResult](d, "seal", "sealed"); !r.Complete || len(r.Processes) != 2 || r.Refused == 0 {
		t.Errorf("seal: %+v", r)
	}
	for _, command := range []string{"w bind", "m listen", "w unshare"} {
		if got := tell(t, port, command); got != -int(unix.EPERM) && got != -int(unix.ENOSYS) {
			t.Errorf("%q in the sealed container returned %d", command, got)
		}
	}
	answers{{"w socket", 0, "the policy has it while running"}}.check(t, port)
	eventually(t, "what was refused is told, with what to type", func() (bool, string) {
		for _, ev := range d.events() {
			if ev.Kind == "refused" && ev.Container == "sealed" && strings.Contains(ev.Text, "bind") && strings.Contains(ev.Text, "whittle policy allow") {
				return true, ""
			}
		}
		return false, fmt.Sprint(d.events())
	})
	remove(t, e, d, "sealed")
}
