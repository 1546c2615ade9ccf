// SPDX-License-Identifier: Apache-2.0

package inject

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/whittle-sec/whittle/internal/testenv"
	"golang.org/x/sys/unix"
)

// startTalking is start with a standard input.
func startTalking(t testing.TB, path string, args ...string) (*child, io.Writer) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	c := &child{Cmd: exec.Command(path, args...)}
	c.Stdin, c.Stderr = r, os.Stderr
	c.begin(t)
	r.Close()
	return c, w
}

func tell(t *testing.T, w io.Writer) {
	t.Helper()
	if _, err := io.WriteString(w, "\n"); err != nil {
		t.Fatal(err)
	}
}

// Nothing of a container that forks all the time stays outside of the filter, with its freezer and without.
func TestForkStorm(t *testing.T) {
	testenv.NeedRoot(t)
	exe := compileC(t, "storm")
	for _, noFreeze := range []bool{false, true} {
		t.Run(map[bool]string{false: "frozen", true: "one by one"}[noFreeze], func(t *testing.T) {
			dir, group := t.TempDir(), newGroup(t)
			c := startAs(t, inGroupAttr(t, group), exe, dir)
			c.line(t)
			until(t, "a storm", func() bool { pids, _ := inGroup(group); return len(pids) > 50 })
			// On a busy machine a process may wait for its vfork child for seconds.
			r := inject(t, Request{Cgroup: group, Program: noMkdir(t), NoFreeze: noFreeze, Patience: 8 * time.Second})
			if err := os.WriteFile(filepath.Join(dir, "on"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			t.Logf("%d processes, %d passes, frozen %v", len(r.Processes), r.Passes, r.Frozen)
			for range 20 {
				pids, err := inGroup(group)
				if err != nil {
					t.Fatal(err)
				}
				for _, pid := range pids {
					if s, err := readStatus(procPath(pid, "/status")); err == nil && s.state != 'Z' && s.filters != 1 {
						t.Fatalf("process %d has %d filters", pid, s.filters)
					}
				}
				time.Sleep(10 * time.Millisecond)
			}
			if _, err := os.Stat(filepath.Join(dir, "bad")); err == nil {
				t.Error("a process made a directory")
			}
		})
	}
}

// A second attach reaches only newcomers, and what was loaded is what is read back.
func TestSkipAndAttest(t *testing.T) {
	testenv.NeedRoot(t)
	c := start(t, "/bin/sleep", "60")
	r := Request{PIDs: []int{c.Process.Pid}, Program: noMkdir(t)}
	inject(t, r)
	again := inject(t, r)
	if got := again.Processes[0].How; !strings.HasPrefix(got, skippedMark) {
		t.Errorf("the second time: got %q, want it skipped", got)
	}
	r.Program = program(t, unix.SECCOMP_RET_ERRNO|1, "rmdir", 2)
	inject(t, r)
	got, err := Attest(t.Context(), self(t), []int{c.Process.Pid, 1 << 22})
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || got[0].Err != "" || got[1].Err == "" {
		t.Fatalf("got %+v, want the filters of the first and an error for the second", got)
	}
	if f := got[0].Filters; len(f) != 2 || !slices.Equal(f[0], noMkdir(t)) || !slices.Equal(f[1], r.Program) {
		t.Errorf("got %v, want what was loaded, the oldest first", f)
	}
	direct, err := Installed(c.Process.Pid)
	if err != nil || len(direct) != 2 {
		t.Errorf("Installed: got %v, %v", direct, err)
	}
}

// A process that may not load filters without no_new_privs gets that too, and we say so.
func TestNoNewPrivs(t *testing.T) {
	testenv.NeedRoot(t)
	attr := &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	for want, attr := range map[bool]*syscall.SysProcAttr{true: attr, false: nil} {
		c := startAs(t, attr, "/bin/sleep", "60")
		until(t, "it to sleep", func() bool { return stateOf(c.Process.Pid) == 'S' })
		report, err := Survey(Request{PIDs: []int{c.Process.Pid}}, nil)
		if err != nil || len(report.Processes) != 1 || report.Processes[0].SetsNoNewPrivs != want {
			t.Errorf("Survey: got %+v, %v; want no_new_privs to be set: %v", report, err, want)
		}
		if p := inject(t, Request{PIDs: []int{c.Process.Pid}, Program: noMkdir(t)}).Processes[0]; p.NoNewPrivs != want {
			t.Errorf("got %+v, want no_new_privs set: %v", p, want)
		}
		if s, err := readStatus(procPath(c.Process.Pid, "/status")); err != nil || s.noNewPrivs != want {
			t.Errorf("got %+v, %v; want no_new_privs: %v", s, err, want)
		}
	}
}

// Threads whose filters have grown apart get theirs one by one, and each brings a listener.
func TestDiverged(t *testing.T) {
	testenv.NeedRoot(t)
	exe := compileC(t, "threads")
	for _, listener := range []bool{false, true} {
		c, in := startTalking(t, exe, "diverged")
		c.line(t)
		r := inject(t, Request{PIDs: []int{c.Process.Pid}, Program: noMkdir(t), Listener: listener})
		p := r.Processes[0]
		if p.How != PerThread || p.Threads != 3 {
			t.Errorf("got %+v, want its 3 threads one by one", p)
		}
		if listener && (p.Listener < 0 || len(p.More) != 2) {
			t.Errorf("got %+v, want 3 listeners", p)
		}
		tell(t, in)
		if got := c.line(t); got != "3" {
			t.Errorf("mkdir is refused to %s threads, want 3", got)
		}
	}
}

// A process whose only thread waits for its vfork child is filtered before it runs again.
func TestVforkParent(t *testing.T) {
	testenv.NeedRoot(t)
	exe := compileC(t, "threads")
	for _, how := range []string{"alone", "frozen"} {
		t.Run(how, func(t *testing.T) {
			r := Request{Program: noMkdir(t)}
			var attr *syscall.SysProcAttr
			if how == "frozen" {
				r.Cgroup = newGroup(t)
				attr = inGroupAttr(t, r.Cgroup)
			}
			c := startAs(t, attr, exe, "vforked", "300")
			c.line(t)
			until(t, "it to wait for its child", func() bool { return stateOf(c.Process.Pid) == 'D' })
			if how == "alone" {
				r.PIDs = []int{c.Process.Pid}
			}
			inject(t, r)
			if got := c.line(t); got != "1" {
				t.Error("mkdir was not refused")
			}
			// One that waits longer than we do is told.
			c = startAs(t, attr, exe, "vforked", "1500")
			c.line(t)
			until(t, "it to wait for its child", func() bool { return stateOf(c.Process.Pid) == 'D' })
			late := Request{PIDs: []int{c.Process.Pid}, Program: r.Program, Patience: 50 * time.Millisecond}
			got, err := Run(t.Context(), self(t), late)
			if err != nil || got.Complete {
				t.Errorf("got %+v, %v; want it incomplete", got, err)
			}
			c.line(t)
		})
	}
}

// A frozen container is filtered and stays frozen; one below a frozen group is told.
func TestFrozen(t *testing.T) {
	testenv.NeedRoot(t)
	group := newGroup(t)
	c := startAs(t, inGroupAttr(t, group), compileC(t, "block"), "nanosleep", "100")
	c.line(t)
	frozen := func() bool { return frozenStill(group) }
	if err := writeFile(group+"/cgroup.freeze", "1"); err != nil {
		t.Fatal(err)
	}
	until(t, "it to freeze", frozen)
	inject(t, Request{Cgroup: group, Program: noMkdir(t)})
	until(t, "it to be frozen again", frozen)
	if err := writeFile(group+"/cgroup.freeze", "0"); err != nil {
		t.Fatal(err)
	}
	if got, want := c.line(t), "0 0 whole filtered"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// What is traced already, and what is another process than was meant, is left alone and told.
func TestRefusals(t *testing.T) {
	testenv.NeedRoot(t)
	c := start(t, "/bin/sleep", "60")
	pid := c.Process.Pid
	s, err := readStat(procPath(pid, "/stat"))
	if err != nil {
		t.Fatal(err)
	}
	own, err := mountNS(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	traced := traceOne(t)
	tests := map[string]struct {
		r    Request
		want string
	}{
		"used again":     {Request{PIDs: []int{pid}, Starts: []uint64{s.start + 1}}, "used again"},
		"traced":         {Request{PIDs: []int{traced}}, "traced by process"},
		"no such filter": {Request{PIDs: []int{pid}}, "instructions"},
		"host":           {Request{PIDs: []int{pid}, MountNS: own}, "own mount namespace"},
		"not in there":   {Request{PIDs: []int{pid}, MountNS: own + 1}, ""},
	}
	for name, test := range tests {
		if name != "no such filter" {
			test.r.Program = noMkdir(t)
		}
		got, err := Run(t.Context(), self(t), test.r)
		var told strings.Builder
		for _, p := range got.Processes {
			told.WriteString(p.Err)
		}
		told.WriteString(strings.Join(got.Problems, " "))
		if err != nil || !strings.Contains(told.String(), test.want) || got.Complete != (test.want == "") {
			t.Errorf("%s: got %+v, %v; want %q", name, got, err, test.want)
		}
	}
	if s, err := readStatus(procPath(pid, "/status")); err != nil || s.filters != 0 {
		t.Errorf("got %+v, %v; want no filter", s, err)
	}
}

// traceOne is a process that somebody traces: a helper that stops when it has seized it.
func traceOne(t *testing.T) int {
	t.Helper()
	c := start(t, "/bin/sleep", "60")
	stop, ready, done := make(chan struct{}), make(chan error), make(chan struct{})
	go func() {
		// The thread ends with the goroutine, and its tracee is let go.
		lockThread()
		defer close(done)
		ready <- seize(c.Process.Pid)
		<-stop
	}()
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { close(stop); <-done })
	return c.Process.Pid
}

// A held call whose supervisor was killed after it had taken the notification is notified again.
func TestKick(t *testing.T) {
	testenv.NeedRoot(t)
	c, in := startTalking(t, compileC(t, "threads"), "held")
	c.line(t)
	r := inject(t, Request{PIDs: []int{c.Process.Pid}, Program: program(t, unix.SECCOMP_RET_USER_NOTIF, "getppid", 3), Listener: true})
	fd := r.Processes[0].Listener
	tell(t, in)
	first := receiveHeld(t, fd)
	if err := Kick(t.Context(), self(t), []int{int(first.pid), 1 << 22}); err != nil {
		t.Fatal(err)
	}
	second := receiveHeld(t, fd)
	if second.id == first.id || second.pid != first.pid {
		t.Errorf("got %+v after %+v, want another notification for the same thread", second, first)
	}
	answer := struct {
		id    uint64
		val   int64
		err   int32
		flags uint32
	}{id: second.id, val: 4711}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), 0xc0182101, uintptr(unsafe.Pointer(&answer))); errno != 0 {
		t.Fatal(errno)
	}
	if got := c.line(t); got != "4711 0" {
		t.Errorf("got %q, want the answer", got)
	}
}

// held is a struct seccomp_notif.
type held struct {
	id         uint64
	pid, flags uint32
	data       [64]byte
}

func receiveHeld(t *testing.T, fd int) (h held) {
	t.Helper()
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	if n, err := unix.Poll(fds, 5000); err != nil || n != 1 {
		t.Fatalf("wait for a held call: %d, %v", n, err)
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), 0xc0502100, uintptr(unsafe.Pointer(&h))); errno != 0 {
		t.Fatal(errno)
	}
	return h
}

// The first process of a pid namespace ignores most signals. The guard stops it all the same.
func TestContainerInit(t *testing.T) {
	testenv.NeedRoot(t)
	exe := compileC(t, "block")
	for _, at := range []string{"masked", "installed", "unmapped"} {
		attr := &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
		c := startAs(t, attr, exe, "nanosleep", "700")
		c.line(t)
		got, err := killAt(t, at, Request{PIDs: []int{c.Process.Pid}, Program: noMkdir(t), Listener: true},
			func(_, tracer int) { unix.Kill(tracer, unix.SIGKILL) })
		if err != nil || !got.Complete {
			t.Errorf("%s: got %+v, %v; want it complete", at, got, err)
		}
		if got, want := c.line(t), "0 0 whole filtered"; got != want {
			t.Errorf("%s: got %q, want %q", at, got, want)
		}
	}
}
