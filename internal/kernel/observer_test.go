// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"bufio"
	"fmt"
	"net"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/internal/syscalls"
	"github.com/whittle-sec/whittle/internal/testenv"
)

// notHarmless are the numbers that no argument makes harmless for the caller: they end it, fork it, block it or (uretprobe,
// uprobe, outside a trampoline) kill it.
var notHarmless = map[syscalls.ABI][]string{
	syscalls.X86_64: {"rt_sigreturn", "pause", "fork", "vfork", "exit", "exit_group", "vhangup", "uretprobe", "uprobe"},
	syscalls.I386:   {"rt_sigreturn", "sigreturn", "pause", "fork", "vfork", "exit", "exit_group", "vhangup", "sigsuspend"},
}

func TestEveryNumber(t *testing.T) {
	for _, tt := range []struct {
		abi  syscalls.ABI
		flag string
		exit uint32
	}{
		{syscalls.X86_64, "-m64", 231},
		{syscalls.I386, "-m32", 252},
	} {
		t.Run(tt.abi.String(), func(t *testing.T) {
			if tt.abi == syscalls.I386 {
				testenv.NeedI386(t)
			}
			var numbers []string
			want := syscalls.SetOf(tt.exit)
			for nr := range uint32(syscalls.MaxNr) {
				if slices.Contains(notHarmless[tt.abi], syscalls.Name(tt.abi, nr)) {
					continue
				}
				numbers = append(numbers, strconv.Itoa(int(nr)))
				want.Add(nr)
			}
			o := open(t)
			g := newCgroup(t)
			bin := buildC(t, "every.c", tt.flag, "-static", "-nostdlib", "-fno-pie", "-no-pie", "-fno-stack-protector",
				"-DNUMBERS="+strings.Join(numbers, ","))
			cmd := g.command(bin)
			cmd.SysProcAttr.Cloneflags = unix.CLONE_NEWIPC | unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWNET
			trace := learn(t, o, g, cmd)
			got := made(trace, observe.LaneService)
			if diff := got[tt.abi].Minus(want); !diff.Empty() {
				t.Errorf("learned but never made: %v", diff.Names(tt.abi))
			}
			if diff := want.Minus(got[tt.abi]); !diff.Empty() {
				t.Errorf("made but not learned: %v", diff.Names(tt.abi))
			}
			for abi, set := range got {
				if abi != tt.abi && !set.Empty() {
					t.Errorf("learned in %s, where nothing was called: %v", abi, set.Names(abi))
				}
			}
			if n := trace.Account.UnknownNumbers; n != 0 {
				t.Errorf("%d unknown numbers", n)
			}
		})
	}
}

func TestNumbersPastTheTable(t *testing.T) {
	o := open(t)
	g := newCgroup(t)
	bin := buildC(t, "every.c", "-static", "-nostdlib", "-fno-pie", "-no-pie", "-fno-stack-protector",
		"-DNUMBERS=1024,70000,0x7fffffff")
	trace := learn(t, o, g, g.command(bin))
	if got := trace.Account.UnknownNumbers; got != 3 {
		t.Errorf("%d unknown numbers, want 3", got)
	}
}

func TestX32NumbersAreTheirOwnABI(t *testing.T) {
	o := open(t)
	g := newCgroup(t)
	bin := buildC(t, "every.c", "-static", "-nostdlib", "-fno-pie", "-no-pie", "-fno-stack-protector",
		"-DNUMBERS=0x4000006e") // getppid
	got := made(learn(t, o, g, g.command(bin)), observe.LaneService)
	if want := syscalls.SetOf(110); got[syscalls.X32] != want {
		t.Errorf("x32: %v, want getppid", got[syscalls.X32].Names(syscalls.X32))
	}
	if want := syscalls.SetOf(231); got[syscalls.X86_64] != want {
		t.Errorf("x86_64: %v, want exit_group", got[syscalls.X86_64].Names(syscalls.X86_64))
	}
}

// strace's view of the same run is the reference: it stops every call of every thread.
func TestAgreesWithStrace(t *testing.T) {
	testenv.NeedTool(t, "strace", "python3", "redis-server", "nginx")
	for _, tt := range []struct {
		name string
		cmd  []string
	}{
		{"shell pipeline", []string{"sh", "-c", "ls -l / | sort | tail -1; (sleep 0.01 & wait)"}},
		{"python threads", []string{"python3", "-c", "import threading,subprocess,socket,ssl\n" +
			"ts=[threading.Thread(target=lambda: subprocess.run(['true'])) for _ in range(4)]\n" +
			"[x.start() for x in ts]; [x.join() for x in ts]"}},
		{"redis", []string{"sh", "-c", "redis-server --port 0 --unixsocket $0/r.sock --dir $0 --save '' >/dev/null & " +
			"for i in 1 2 3 4 5 6 7 8 9; do redis-cli -s $0/r.sock ping >/dev/null 2>&1 && break; sleep 0.1; done; " +
			"redis-cli -s $0/r.sock info >/dev/null; redis-cli -s $0/r.sock bgsave >/dev/null; sleep 0.2; kill $!; wait"}},
		{"nginx", []string{"sh", "-c", "mkdir -p $0/logs; printf 'worker_processes 2; pid n.pid; error_log e.log; events {} " +
			"http { access_log off; server { listen unix:n.sock; } }' >$0/n.conf; " +
			"nginx -p $0 -c n.conf -g 'daemon off;' & sleep 0.3; kill -HUP $!; sleep 0.3; kill $!; wait"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := open(t)
			g := newCgroup(t)
			log := t.TempDir() + "/strace"
			// strace itself stays outside: only the command it starts moves into the cgroup, before it executes.
			args := []string{"-f", "-q", "-o", log, "-e", "signal=none", "--",
				"sh", "-c", "echo $$ >" + g.dir + "/cgroup.procs; exec \"$@\"", "sh"}
			args = append(args, tt.cmd...)
			cmd := exec.Command("strace", append(args, t.TempDir())...)
			trace := learn(t, o, g, cmd)
			want := straceCalls(t, log)
			got := made(trace, observe.LaneService)[syscalls.X86_64]
			if diff := got.Minus(want); !diff.Empty() {
				t.Errorf("learned, not seen by strace: %v", diff.Names(syscalls.X86_64))
			}
			if diff := want.Minus(got); !diff.Empty() {
				t.Errorf("seen by strace, not learned: %v", diff.Names(syscalls.X86_64))
			}
			t.Logf("%d calls in both", got.Intersect(want).Len())
		})
	}
}

// straceCalls are the calls after the second execve: the first starts the shell that moves into the cgroup.
func straceCalls(t *testing.T, log string) (set syscalls.Set) {
	t.Helper()
	out, err := exec.Command("cat", log).Output()
	if err != nil {
		t.Fatal(err)
	}
	execs := 0
	for line := range strings.Lines(string(out)) {
		_, rest, _ := strings.Cut(line, " ")
		rest = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(rest), "<... "))
		name, _, found := strings.Cut(rest, "(")
		if i := strings.IndexAny(name, " "); i >= 0 {
			name = name[:i]
		}
		if name == "execve" {
			execs++
			if execs <= 2 {
				continue
			}
		}
		if !found && !strings.Contains(rest, "resumed") || execs < 2 {
			continue
		}
		if nr, ok := syscalls.Number(syscalls.X86_64, name); ok {
			set.Add(nr)
		} else if !strings.HasPrefix(name, "+++") && !strings.HasPrefix(name, "---") && name != "" {
			t.Logf("strace line without a call: %q", line)
		}
	}
	return set
}

func TestMarkers(t *testing.T) {
	o := open(t)
	g := newCgroup(t)
	trace := learn(t, o, g, g.child("markers"))
	for i, m := range markerCalls {
		seen := find(trace, m.name)
		if seen == nil {
			t.Errorf("%s was not learned", m.name)
			continue
		}
		if len(seen.Epochs) != 1 || seen.Epochs[0].Count() != 1 {
			t.Errorf("%s: %v, want once", m.name, seen.Epochs)
		}
		if i > 0 {
			if before := find(trace, markerCalls[i-1].name); before != nil && before.Epochs[0].Epoch() >= seen.Epochs[0].Epoch() {
				t.Errorf("%s in epoch %d, not after the one 1.3 s before it", m.name, seen.Epochs[0].Epoch())
			}
		}
	}
}

func find(trace observe.Trace, name string) *observe.Seen {
	for _, cell := range trace.Cells {
		for i, seen := range cell.Calls {
			if cell.Lane == observe.LaneService && seen.Call.String() == name {
				return &cell.Calls[i]
			}
		}
	}
	return nil
}

// stageOf the only epoch in which a call was made.
func stageOf(t *testing.T, trace observe.Trace, name string) observe.Stage {
	t.Helper()
	seen := find(trace, name)
	if seen == nil || len(seen.Epochs) != 1 {
		t.Fatalf("%s: %+v, want one epoch", name, seen)
	}
	return trace.Epochs[seen.Epochs[0].Epoch()].Stage
}

func TestMarksCutExactly(t *testing.T) {
	o := open(t)
	g := newCgroup(t)
	id, err := o.Observe(Target{CgroupID: g.id})
	if err != nil {
		t.Fatal(err)
	}
	cmd := g.child("marks")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	next := func() string {
		if !lines.Scan() {
			t.Fatal("the child said no more")
		}
		return lines.Text()
	}
	conn, err := net.Dial("tcp", next())
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	next()
	cmd.Process.Signal(syscall.SIGHUP)
	next()
	cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	trace, err := o.Finish(id, true)
	if err != nil {
		t.Fatal(err)
	}
	balanced(t, trace)
	for name, want := range map[string]observe.Stage{
		"listen": observe.StageBoot, "getsid": observe.StageRun, "getpgid": observe.StageReload, "getpriority": observe.StageStop,
	} {
		if got := stageOf(t, trace, name); got != want {
			t.Errorf("%s in stage %d, want %d", name, got, want)
		}
	}
	var causes []string
	for _, e := range trace.Epochs {
		if e.Cause != observe.CauseTick {
			causes = append(causes, fmt.Sprint(e.Cause, e.Signal))
		}
	}
	if got, want := strings.Join(causes, " "), "0 0 2 0 4 1 3 15"; got != want {
		t.Errorf("marks %q, want %q", got, want)
	}
}
