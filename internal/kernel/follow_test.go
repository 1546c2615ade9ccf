// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// family is a shell with a subshell of its own and another program.
const family = `trap "" HUP TERM; exec 3<&0; /bin/sleep 1000 & ( read x <&3 ) & read y`

// members of a cgroup by who they are, once there are as many as wanted.
func (g cgroup) members(t *testing.T, o *Observer, id ID, n int) map[int]Who {
	t.Helper()
	var found map[int]Who
	for range 500 {
		list, err := os.ReadFile(filepath.Join(g.dir, "cgroup.procs"))
		if err != nil {
			t.Fatal(err)
		}
		found = map[int]Who{}
		for field := range strings.FieldsSeq(string(list)) {
			pid, _ := strconv.Atoi(field)
			comm, _ := os.ReadFile("/proc/" + field + "/comm")
			if who, ok := o.Who(id, pid); ok && strings.TrimSpace(string(comm)) != "kernel.test" {
				found[pid] = who
			}
		}
		if len(found) == n && slices.ContainsFunc(valuesOf(found), func(w Who) bool { return w.Role.Exe == "/bin/sleep" }) {
			return found
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("the processes did not come: %v", found)
	return nil
}

func valuesOf(m map[int]Who) (all []Who) {
	for _, w := range m {
		all = append(all, w)
	}
	return all
}

// What is followed costs no task anything, and who is who stays known: from its start, and after it was learned from.
func TestFollow(t *testing.T) {
	for _, learned := range []bool{false, true} {
		t.Run("learned "+strconv.FormatBool(learned), func(t *testing.T) {
			o := open(t)
			g := newCgroup(t)
			start := o.Follow
			if learned {
				start = o.Observe
			}
			id, err := start(Target{CgroupID: g.id, Held: true})
			if err != nil {
				t.Fatal(err)
			}
			cmd := g.command("/bin/sh", "-c", family)
			if _, err := cmd.StdinPipe(); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() {
				cmd.Process.Kill()
				_ = cmd.Wait()
			}()
			g.members(t, o, id, 3)
			if learned {
				trace, err := o.Settle(id)
				if err != nil {
					t.Fatal(err)
				}
				if len(trace.Cells) == 0 || trace.Ended {
					t.Errorf("Settle gave %d cells, ended %v", len(trace.Cells), trace.Ended)
				}
			}
			if got := o.Attached(); !slices.Equal(got, []string{"lives"}) {
				t.Errorf("attached: %v", got)
			}
			want := map[string]int{"/bin/sh:0": 1, "/bin/sh:1": 1, "/bin/sleep:0": 1}
			for pid, who := range g.members(t, o, id, 3) {
				want[who.Role.Exe+":"+strconv.Itoa(int(who.Role.Generation))]--
				if who.Lane != observe.LaneService {
					t.Errorf("process %d is in %v", pid, who)
				}
			}
			for role, n := range want {
				if n != 0 {
					t.Errorf("role %s: %d missing", role, n)
				}
			}
			if _, ok := o.Who(id, os.Getpid()); ok {
				t.Error("a process outside is taken for one of the container")
			}
			stages(t, o, id, cmd.Process.Pid)
			if _, err := o.Finish(id, false); err != nil {
				t.Fatal(err)
			}
			if _, ok := o.Stage(id); ok {
				t.Error("a finished container has a stage")
			}
		})
	}
}

// stages of a container by what is sent to it: each is known as soon as kill(2) returns.
func stages(t *testing.T, o *Observer, id ID, pid int) {
	t.Helper()
	is := func(when string, want observe.Stage) {
		t.Helper()
		if got, _ := o.Stage(id); got != want {
			t.Errorf("%s: stage %v, want %v", when, got, want)
		}
	}
	send := func(sig unix.Signal) {
		t.Helper()
		if err := unix.Kill(pid, sig); err != nil {
			t.Fatal(err)
		}
	}
	is("at first", observe.StageBoot)
	send(unix.SIGHUP)
	is("a reload while booting", observe.StageBoot)
	if err := o.SetStage(id, observe.StageRun); err != nil {
		t.Fatal(err)
	}
	is("booted", observe.StageRun)
	send(unix.SIGHUP)
	is("SIGHUP", observe.StageReload)
	send(unix.SIGTERM)
	is("SIGTERM", observe.StageStop)
}

// A birth is over after a while, also where no wait is seen.
func TestBirthEnds(t *testing.T) {
	o := open(t)
	g := newCgroup(t)
	id, err := o.Follow(Target{CgroupID: g.id})
	if err != nil {
		t.Fatal(err)
	}
	defer o.Finish(id, false)
	cmd := g.command("/bin/sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	for _, who := range g.members(t, o, id, 1) {
		if !who.Birth {
			t.Fatalf("just born: %+v", who)
		}
	}
	for began := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		who, ok := o.Who(id, cmd.Process.Pid)
		if !ok {
			t.Fatal("it is no longer known")
		}
		if !who.Birth {
			break
		}
		if time.Since(began) > 4*birthTime {
			t.Fatal("its birth does not end")
		}
	}
}

// What a tracer has a task call is not the container's own, while a filter is put into it.
func TestInjectedCallsAreNotRecorded(t *testing.T) {
	o := open(t)
	for _, injecting := range []bool{false, true} {
		g := newCgroup(t)
		id, err := o.Observe(Target{CgroupID: g.id})
		if err != nil {
			t.Fatal(err)
		}
		if err := o.Injecting(id, injecting); err != nil {
			t.Fatal(err)
		}
		traced(t, g.command("/bin/true"))
		trace, err := o.Finish(id, true)
		if err != nil {
			t.Fatal(err)
		}
		if got := made(trace, observe.LaneService)[syscalls.X86_64]; got.Empty() != injecting {
			t.Errorf("injecting %v: recorded %v", injecting, got.Names(syscalls.X86_64))
		}
		if len(trace.Denied) != 0 {
			t.Errorf("injecting %v: what was not recorded is taken for refused: %v", injecting, trace.Denied)
		}
	}
}

// traced runs a command under ptrace from its exec to its end.
func traced(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	runtime.LockOSThread() // the tracer is a thread
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr.Ptrace = true
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait() // it has been reaped
	for {
		var status unix.WaitStatus
		_, err := unix.Wait4(cmd.Process.Pid, &status, 0, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil || status.Exited() || status.Signaled() {
			return
		}
		if err := unix.PtraceCont(cmd.Process.Pid, 0); err != nil {
			t.Fatal(err)
		}
	}
}
