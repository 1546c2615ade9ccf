// SPDX-License-Identifier: Apache-2.0

package ward

import (
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/kernel"
	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/internal/plan"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/supervise"
	"github.com/whittle-sec/whittle/internal/syscalls"
	"github.com/whittle-sec/whittle/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// fake is what the kernel programs say.
type fake struct {
	who   kernel.Who
	known bool
	stage observe.Stage
	lost  bool
}

func (f *fake) Who(kernel.ID, int) (kernel.Who, bool) { return f.who, f.known }
func (f *fake) Stage(kernel.ID) (observe.Stage, bool) { return f.stage, !f.lost }

func number(t *testing.T, name string) syscalls.Call {
	t.Helper()
	nr, ok := syscalls.Number(syscalls.X86_64, name)
	if !ok {
		t.Fatalf("no call %s", name)
	}
	return syscalls.Call{ABI: syscalls.X86_64, Nr: nr}
}

// orders of a service whose master boots with bind and execs, and whose workers do neither.
func orders(t *testing.T, exe string) *Orders {
	t.Helper()
	set := func(names ...string) (s syscalls.Set) {
		for _, n := range names {
			s.Add(number(t, n).Nr)
		}
		return s
	}
	calls := &policy.Calls{
		Phases: map[policy.Phase]syscalls.Set{
			policy.Boot: set("execve", "bind", "clone", "setuid"), policy.Run: set("execve", "clone", "setuid", "getpid"), policy.Stop: set("kill"),
		},
		Roles: map[string]policy.RoleCalls{
			policy.RoleKey(exe, 0): {Phases: map[policy.Phase]syscalls.Set{policy.Boot: set("execve", "bind", "clone"), policy.Run: set("execve", "clone")}},
			policy.RoleKey(exe, 1): {Phases: map[policy.Phase]syscalls.Set{policy.Run: set("getpid")}, Birth: set("setuid")},
		},
		Evidence: map[uint32]policy.Evidence{},
	}
	p := policy.Policy{Complete: true, ABIs: map[syscalls.ABI]*policy.Calls{syscalls.X86_64: calls}}
	return OrdersOf(p, 1, plan.Default(), nil)
}

func TestJudge(t *testing.T) {
	const exe = "/usr/sbin/nginx"
	master := kernel.Who{Lane: observe.LaneService, Role: observe.Role{Exe: exe}}
	worker := kernel.Who{Lane: observe.LaneService, Role: observe.Role{Exe: exe, Generation: 1}}
	born := worker
	born.Birth = true
	stranger := kernel.Who{Lane: observe.LaneService}
	for _, tt := range []struct {
		name  string
		who   kernel.Who
		stage observe.Stage
		lost  bool
		call  string
		mode  Mode
		want  bool // allowed
		count [3]uint64
	}{
		{"the master binds while booting", master, observe.StageBoot, false, "bind", Enforce, true, [3]uint64{1, 0, 0}},
		{"and not after", master, observe.StageRun, false, "bind", Enforce, false, [3]uint64{1, 0, 1}},
		{"what is shadowed is counted", master, observe.StageRun, false, "bind", Shadow, true, [3]uint64{1, 1, 0}},
		{"what is off is not", master, observe.StageRun, false, "bind", Off, true, [3]uint64{1, 0, 0}},
		{"the master executes", master, observe.StageRun, false, "execve", Enforce, true, [3]uint64{1, 0, 0}},
		{"its workers do not", worker, observe.StageRun, false, "execve", Enforce, false, [3]uint64{1, 0, 1}},
		{"a worker drops its privileges in its birth", born, observe.StageRun, false, "setuid", Enforce, true, [3]uint64{1, 0, 0}},
		{"and never again", worker, observe.StageRun, false, "setuid", Enforce, false, [3]uint64{1, 0, 1}},
		{"a program without a name has what every role has", stranger, observe.StageRun, false, "execve", Enforce, false, [3]uint64{1, 0, 1}},
		{"an unknown stage is running", master, observe.StageBoot, true, "bind", Enforce, false, [3]uint64{1, 0, 1}},
		{"what nobody ever did", master, observe.StageRun, false, "bpf", Enforce, false, [3]uint64{1, 0, 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k := &fake{tt.who, true, tt.stage, tt.lost}
			w := New(k, 1, 1, orders(t, exe), tt.mode, time.Now)
			v := w.Judge(supervise.Held{TID: os.Getpid(), Call: number(t, tt.call)})
			if v.Allow != tt.want {
				t.Errorf("allowed %v, want %v: %+v", v.Allow, tt.want, w.Tally.Snapshot())
			}
			if !v.Allow && v.Errno == 0 {
				t.Error("a refusal without an errno")
			}
			calls, would, denied := w.Counts()
			if got := [3]uint64{calls, would, denied}; got != tt.count {
				t.Errorf("counts %v, want %v", got, tt.count)
			}
			lines := w.Tally.Snapshot()
			if tt.mode == Off {
				if len(lines) != 0 {
					t.Errorf("it is off, and tells %+v", lines)
				}
				return
			}
			if len(lines) != 1 || (lines[0].Errno != 0) != (!tt.want || tt.mode == Shadow) || lines[0].Allowed != v.Allow {
				t.Errorf("it tells %+v", lines)
			}
		})
	}
}

// Where the kernel programs know nothing of a thread, /proc has to do.
func TestJudgeByProc(t *testing.T) {
	testenv.NeedRoot(t)
	sleep := exec.Command("/bin/sleep", "1000")
	start(t, sleep)
	k := &fake{stage: observe.StageBoot}
	w := New(k, 1, sleep.Process.Pid, orders(t, "/bin/sleep"), Enforce, time.Now)
	if v := w.Judge(supervise.Held{TID: sleep.Process.Pid, Call: number(t, "bind")}); !v.Allow {
		t.Errorf("the init's own program: %+v", w.Tally.Snapshot())
	}
	// The same program under another name, in a policy that knows it as that.
	w = New(k, 1, sleep.Process.Pid, orders(t, "/bin/cat"), Enforce, time.Now)
	if v := w.Judge(supervise.Held{TID: sleep.Process.Pid, Call: number(t, "bind")}); v.Allow {
		t.Errorf("another program: %+v", w.Tally.Snapshot())
	}
	if v := w.Judge(supervise.Held{TID: 1 << 30, Call: number(t, "bind")}); v.Allow {
		t.Errorf("a thread that is not there: %+v", w.Tally.Snapshot())
	}
}

func start(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		_ = cmd.Wait()
	})
}

// Only what came from outside a pid namespace and has executed nothing there yet is the runtime's.
func TestLanes(t *testing.T) {
	testenv.NeedRoot(t)
	init := exec.Command("/bin/sleep", "1000")
	init.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID}
	start(t, init)
	pid := init.Process.Pid
	// A shell that entered; its own child has executed nothing since its fork.
	entered := exec.Command("nsenter", "-t", strconv.Itoa(pid), "-p", "sh", "-c", "exec 3<&0; (read x <&3) & wait")
	in, err := entered.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	start(t, entered)
	lane := func(pid int) observe.Lane {
		task, err := supervise.Lookup(pid)
		if err != nil {
			t.Fatal(err)
		}
		return laneOf(task, init.Process.Pid)
	}
	if got := lane(pid); got != observe.LaneService {
		t.Errorf("the init is in lane %v", got)
	}
	var shell, child int
	for range 3000 {
		shell = childOf(entered.Process.Pid)
		if child = childOf(shell); child != 0 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if child == 0 {
		t.Fatal("the shell has no child")
	}
	if got := lane(shell); got != observe.LaneExec {
		t.Errorf("what entered is in lane %v", got)
	}
	if got := lane(child); got != observe.LaneExec {
		t.Errorf("what it forked is in lane %v", got)
	}
	// As runc does it: entered, forked, and nothing executed yet.
	parent, err := parentOf(shell)
	if err != nil || samePIDs(parent, pid) || !samePIDs(shell, pid) {
		t.Fatalf("the parent of the shell, %d, is not outside (%v)", parent, err)
	}
	if got := laneOf(supervise.Task{TGID: shell, Forked: true}, pid); got != observe.LaneRuntime {
		t.Errorf("what was forked from outside and has executed nothing is in lane %v", got)
	}
}

// The first process is the runtime's until it has executed something, but only where the runtime brought the filter.
func TestLaneOfTheFirst(t *testing.T) {
	for _, tt := range []struct {
		name            string
		started, forked bool
		want            observe.Lane
	}{
		{"before its first program", true, true, observe.LaneRuntime},
		{"after it", true, false, observe.LaneService},
		{"a program that was forked, then attached to", false, true, observe.LaneService},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := &Ward{init: os.Getpid()}
			if tt.started {
				w.StartedUnder()
			}
			if got := w.laneOf(supervise.Task{TGID: os.Getpid(), Forked: tt.forked}); got != tt.want {
				t.Errorf("it is in lane %v, want %v", got, tt.want)
			}
		})
	}
}

// childOf a process; 0 when it has none.
func childOf(pid int) int {
	entries, err := os.ReadDir("/proc")
	if err != nil || pid == 0 {
		return 0
	}
	for _, e := range entries {
		child, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if parent, err := parentOf(child); err == nil && parent == pid {
			return child
		}
	}
	return 0
}
