// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"fmt"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

var getsid = syscalls.Call{ABI: syscalls.X86_64, Nr: 124}

func TestDeniedCallsAreSeenWhileLearning(t *testing.T) {
	o := open(t)
	g := newCgroup(t)
	trace := learn(t, o, g, g.command(buildC(t, "denied.c")))
	if len(trace.Denied) != 1 {
		t.Fatalf("denied: %+v, want one", trace.Denied)
	}
	d := trace.Denied[0]
	if d.Call != getsid || d.Errno != 1 || d.Count != 5 || d.Lane != observe.LaneService {
		t.Errorf("denied %+v, want getsid five times with EPERM in the service lane", d)
	}
	made := made(trace, observe.LaneService)[syscalls.X86_64]
	if made.Has(getsid.Nr) || !made.Has(121) {
		t.Errorf("learned getsid %v, getpgid %v; want only getpgid", made.Has(getsid.Nr), made.Has(121))
	}
}

func TestWatchTellsDenials(t *testing.T) {
	o := open(t)
	g := newCgroup(t)
	var all syscalls.Set
	for nr := range uint32(syscalls.MaxNr) {
		all.Add(nr)
	}
	all.Remove(getsid.Nr)
	id, err := o.Watch(Target{CgroupID: g.id}, Allowed{Calls: map[syscalls.ABI]syscalls.Set{syscalls.X86_64: all}})
	if err != nil {
		t.Fatal(err)
	}
	cmd := g.command(buildC(t, "denied.c"))
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	for _, count := range []uint64{1, 2, 4} {
		select {
		case d := <-o.Denials():
			if d.Container != id || d.Call != getsid || d.Errno != 1 || d.PID != cmd.Process.Pid || d.Comm != "denied" ||
				d.Lane != observe.LaneService || d.Args[0] != 42 || d.Args[1] != 43 || d.Count != count {
				t.Errorf("told %+v, want getsid(42, 43) number %d by denied[%d]", d, count, cmd.Process.Pid)
			}
			if age := time.Since(d.Time); age < 0 || age > time.Minute {
				t.Errorf("told to be %v old", age)
			}
		case <-time.After(time.Minute):
			t.Fatalf("denial number %d was not told", count)
		}
	}
	trace, err := o.Finish(id, true)
	if err != nil {
		t.Fatal(err)
	}
	if len(trace.Denied) != 1 || trace.Denied[0].Count != 5 {
		t.Errorf("counted %+v, want 5", trace.Denied)
	}
	if n := len(trace.Cells); n != 0 {
		t.Errorf("a watched container was learned from: %d cells", n)
	}
}

// Short-lived containers: each lives for about as long as one process start, many at once.
func TestShortLivedLoseNothing(t *testing.T) {
	o := open(t)
	bin := buildC(t, "exit.c", "-static", "-nostdlib")
	const all, atOnce = 500, 50
	var wg sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	failures := make(chan error, all)
	groups := make([]cgroup, all)
	for i := range groups {
		groups[i] = newCgroup(t)
	}
	for _, g := range groups {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			failures <- shortLived(o, g, bin)
		})
	}
	wg.Wait()
	close(failures)
	for err := range failures {
		if err != nil {
			t.Error(err)
		}
	}
}

func shortLived(o *Observer, g cgroup, bin string) error {
	id, err := o.Observe(Target{CgroupID: g.id})
	if err != nil {
		return err
	}
	if err := g.command("sh", "-c", "sleep 0.1; exec "+bin).Run(); err != nil {
		return err
	}
	trace, err := o.Finish(id, true)
	if err != nil {
		return err
	}
	a := trace.Account
	if a.Recorded != a.Drained || len(a.Losses) > 0 {
		return fmt.Errorf("container %d: %+v", id, a)
	}
	set := made(trace, observe.LaneService)[syscalls.X86_64]
	if !set.Has(60) || !set.Has(59) || !set.Has(61) { // exit, execve, wait4
		return fmt.Errorf("container %d learned only %v", id, set.Names(syscalls.X86_64))
	}
	return nil
}

func TestLateContainer(t *testing.T) {
	o := open(t)
	g := newCgroup(t)
	cmd := g.command("sh", "-c", "while :; do sleep 0.02; done")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop := sync.OnceFunc(func() { cmd.Process.Kill(); cmd.Wait() })
	defer stop()
	// A process that came in from outside, as podman exec's do.
	other := g.command("sh", "-c", "while :; do sleep 0.02; done")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { other.Process.Kill(); other.Wait() }()
	time.Sleep(50 * time.Millisecond) // not a race: later would do as well
	id, err := o.Observe(Target{CgroupID: g.id, InitPID: cmd.Process.Pid, Late: true})
	if err != nil {
		t.Fatal(err)
	}
	lanes := map[observe.Lane]bool{}
	deadline := time.Now().Add(time.Minute)
	for len(lanes) < 2 && time.Now().Before(deadline) {
		trace, err := o.Trace(id)
		if err != nil {
			t.Fatal(err)
		}
		for _, cell := range trace.Cells {
			lanes[cell.Lane] = true
		}
	}
	trace, err := o.Finish(id, false)
	if err != nil {
		t.Fatal(err)
	}
	if !trace.Account.Late {
		t.Error("the account does not say that the container was running before")
	}
	if !lanes[observe.LaneService] || !lanes[observe.LaneExec] {
		t.Errorf("lanes %v, want service and exec", lanes)
	}
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Fatal(err)
	}
	named := false
	for _, cell := range trace.Cells {
		named = named || cell.Role.Exe != "?" && cell.Role.Generation == 0
	}
	if !named {
		t.Errorf("no role is named, want %s; cells %+v", sh, trace.Cells)
	}
}

func TestFullRoundOfContainers(t *testing.T) {
	o := open(t)
	// Removing keys must not make later look-ups longer, nor lose other containers.
	for round := range 2 {
		var ids []ID
		for i := range 200 {
			id, err := o.Observe(Target{CgroupID: uint64(1<<40 + round*10000 + i*7)})
			if err != nil {
				t.Fatalf("round %d, container %d: %v", round, i, err)
			}
			ids = append(ids, id)
		}
		for _, id := range ids {
			if _, err := o.Finish(id, true); err != nil {
				t.Fatal(err)
			}
		}
	}
	for i := range o.shared.slots {
		if key := o.shared.slots[i].Key; key != keyFree {
			t.Fatalf("slot %d still holds %#x", i, key)
		}
	}
}

func TestMarksFasterThanPeeksAreAGap(t *testing.T) {
	o := open(t)
	g := newCgroup(t)
	id, err := o.Observe(Target{CgroupID: g.id})
	if err != nil {
		t.Fatal(err)
	}
	o.mu.Lock()
	for range history + 1 {
		o.tick(o.containers[id], observe.StageBoot)
	}
	o.mu.Unlock()
	trace, err := o.Finish(id, true)
	if err != nil {
		t.Fatal(err)
	}
	if len(trace.Account.Gaps) != 1 {
		t.Errorf("gaps %q, want one", trace.Account.Gaps)
	}
}

// EPERM from a call that the filter lets through with some arguments is the filter's only with others.
func TestWatchLooksAtArguments(t *testing.T) {
	bin := buildC(t, "denied.c") // getsid(42, 43) gets EPERM
	var all syscalls.Set
	for nr := range uint32(syscalls.MaxNr) {
		all.Add(nr)
	}
	all.Remove(getsid.Nr)
	for _, tt := range []struct {
		name   string
		checks []Check
		want   uint64
	}{
		{"matches", []Check{{0, ^uint64(0), 7}, {0, ^uint64(0), 42}}, 0},
		{"matches masked", []Check{{1, 3, 3}}, 0},
		{"does not match", []Check{{0, ^uint64(0), 7}}, 5},
		{"cannot be told", []Check{{0, ^uint64(0), 7}, {1, ^uint64(0), 7}}, 0},
		{"unknown", nil, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := open(t)
			g := newCgroup(t)
			id, err := o.Watch(Target{CgroupID: g.id}, Allowed{
				Calls:   map[syscalls.ABI]syscalls.Set{syscalls.X86_64: all},
				Checked: map[syscalls.Call][]Check{getsid: tt.checks},
			})
			if err != nil {
				t.Fatal(err)
			}
			if err := g.command(bin).Run(); err != nil {
				t.Fatal(err)
			}
			trace, err := o.Finish(id, true)
			if err != nil {
				t.Fatal(err)
			}
			var got uint64
			for _, d := range trace.Denied {
				got += d.Count
			}
			if got != tt.want {
				t.Errorf("%d denials, want %d", got, tt.want)
			}
		})
	}
}
