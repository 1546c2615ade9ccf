// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"context"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/internal/syscalls"
	"github.com/whittle-sec/whittle/internal/testenv"
)

func TestMain(m *testing.M) {
	if child := os.Getenv("WHITTLE_TEST_CHILD"); child != "" {
		os.Exit(runChild(child))
	}
	testenv.Main(m)
}

// cgroup is a directory of the test's own in the v2 hierarchy, removed at its end.
type cgroup struct {
	dir string
	id  uint64
	fd  int
}

func newCgroup(t testing.TB) cgroup {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if !strings.Contains(line, " - cgroup2 ") {
			continue
		}
		dir, err := os.MkdirTemp(strings.Fields(line)[4], "whittle-test-")
		if err != nil {
			t.Fatal(err)
		}
		fd, err := unix.Open(dir, unix.O_DIRECTORY|unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			unix.Close(fd)
			os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0)
			var err error
			for range 3000 { // the killed are gone a moment later
				if err = os.Remove(dir); err == nil {
					return
				}
				time.Sleep(10 * time.Millisecond)
			}
			t.Errorf("the test leaves its cgroup: %v", err)
		})
		return cgroup{dir, st.Ino, fd}
	}
	t.Fatal("no cgroup v2 hierarchy is mounted")
	return cgroup{}
}

// command that starts in the cgroup.
func (g cgroup) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: g.fd, Pdeathsig: syscall.SIGKILL}
	return cmd
}

// child runs this test binary again as one of the programs in child_test.go.
func (g cgroup) child(program string, args ...string) *exec.Cmd {
	cmd := g.command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), "WHITTLE_TEST_CHILD="+program)
	return cmd
}

func open(t *testing.T) *Observer {
	t.Helper()
	testenv.NeedBPF(t)
	o, err := Open(discard)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- o.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		if got := o.Attached(); len(got) != 0 {
			t.Errorf("still attached at the end: %v", got)
		}
		if err := o.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return o
}

// learn observes one command from its first call to its end.
func learn(t *testing.T, o *Observer, g cgroup, cmd *exec.Cmd) observe.Trace {
	t.Helper()
	id, err := o.Observe(Target{CgroupID: g.id})
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Run(); err != nil {
		t.Errorf("%v: %v", cmd, err)
	}
	trace, err := o.Finish(id, true)
	if err != nil {
		t.Fatal(err)
	}
	balanced(t, trace)
	return trace
}

func balanced(t *testing.T, trace observe.Trace) {
	t.Helper()
	a := trace.Account
	if a.Recorded != a.Drained || len(a.Losses) > 0 || len(a.Gaps) > 0 {
		t.Errorf("the account does not balance: %+v", a)
	}
}

// made is what the lanes did, by ABI.
func made(trace observe.Trace, lanes ...observe.Lane) map[syscalls.ABI]syscalls.Set {
	sets := map[syscalls.ABI]syscalls.Set{}
	for _, cell := range trace.Cells {
		for _, lane := range lanes {
			if cell.Lane != lane {
				continue
			}
			for _, seen := range cell.Calls {
				s := sets[seen.Call.ABI]
				s.Add(seen.Call.Nr)
				sets[seen.Call.ABI] = s
			}
		}
	}
	return sets
}

func TestExitOnly(t *testing.T) {
	o := open(t)
	g := newCgroup(t)
	trace := learn(t, o, g, g.command(buildC(t, "exit.c", "-static", "-nostdlib")))
	want := syscalls.SetOf(60)
	if got := made(trace, observe.LaneService)[syscalls.X86_64]; got != want {
		t.Errorf("a program that only exits made %v", got.Names(syscalls.X86_64))
	}
}

func buildC(t testing.TB, source string, flags ...string) string {
	t.Helper()
	testenv.NeedGCC(t)
	out := filepath.Join(t.TempDir(), strings.TrimSuffix(source, ".c"))
	args := append([]string{"-O1", "-o", out, filepath.Join("testdata", source)}, flags...)
	if msg, err := exec.Command("gcc", args...).CombinedOutput(); err != nil {
		t.Fatalf("gcc %v: %v\n%s", args, err, msg)
	}
	return out
}

var discard = slog.New(slog.NewTextHandler(io.Discard, nil))
