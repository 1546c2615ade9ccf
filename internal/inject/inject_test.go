// SPDX-License-Identifier: Apache-2.0

package inject

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/whittle-sec/whittle/internal/syscalls"
	"github.com/whittle-sec/whittle/internal/testenv"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// The test binary is also the helper process, and a server with many threads.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "inject" {
		if err := Serve(3); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if os.Getenv("INJECT_TEST_SERVER") != "" {
		serveThreads()
		return
	}
	// The race detector's runtime sleeps for a second at each exit, the helpers' too.
	os.Setenv("GORACE", "atexit_sleep_ms=0")
	testenv.Main(m)
}

func self(t testing.TB) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return exe
}

// answer a call by its number in both ABIs of the machine with an action, and allow every other.
func program(t testing.TB, action uint32, name string, salt uint32) []bpf.RawInstruction {
	t.Helper()
	nr := func(a syscalls.ABI) uint32 {
		n, ok := syscalls.Number(a, name)
		if !ok {
			t.Fatalf("%s has no %s", a, name)
		}
		return n
	}
	const archI386 = 0x40000003
	raw, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadConstant{Dst: bpf.RegX, Val: salt}, // makes programs differ
		bpf.LoadAbsolute{Off: 4, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: archI386, SkipFalse: 2},
		bpf.LoadAbsolute{Off: 0, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: nr(syscalls.I386), SkipTrue: 2, SkipFalse: 3},
		bpf.LoadAbsolute{Off: 0, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: nr(native), SkipFalse: 1},
		bpf.RetConstant{Val: action},
		bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW},
	})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// refusal of mkdir with an error that no mkdir in the root file system gives.
func noMkdir(t testing.TB) []bpf.RawInstruction {
	return program(t, unix.SECCOMP_RET_ERRNO|uint32(unix.EXDEV), "mkdir", 1)
}

// compileC a program of testdata, once for each test binary.
func compileC(t testing.TB, name string, flags ...string) string {
	t.Helper()
	testenv.NeedGCC(t)
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} { // another user runs it too
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	out := filepath.Join(dir, name)
	args := append([]string{"-O1", "-pthread", "-o", out, filepath.Join("testdata", name+".c")}, flags...)
	if text, err := exec.Command("gcc", args...).CombinedOutput(); err != nil {
		t.Fatalf("gcc %v: %v\n%s", args, err, text)
	}
	return out
}

// i386 flags: Debian's headers for the other ABI are where only the native compiler looks.
func i386Flags() []string { return []string{"-m32", "-I/usr/include/x86_64-linux-gnu"} }

// child is a process under test.
type child struct {
	*exec.Cmd
	lines *bufio.Reader
	done  bool
}

func start(t testing.TB, path string, args ...string) *child {
	t.Helper()
	return startAs(t, nil, path, args...)
}

func startAs(t testing.TB, attr *syscall.SysProcAttr, path string, args ...string) *child {
	t.Helper()
	c := &child{Cmd: exec.Command(path, args...)}
	c.SysProcAttr = attr
	c.Stderr = os.Stderr
	c.begin(t)
	return c
}

func (c *child) begin(t testing.TB) {
	t.Helper()
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.lines = bufio.NewReader(out)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.end() })
}

func lockThread() { runtime.LockOSThread() }

func (c *child) end() {
	if !c.done {
		c.done = true
		c.Process.Kill()
		c.Wait()
	}
}

func (c *child) line(t testing.TB) string {
	t.Helper()
	line, err := c.lines.ReadString('\n')
	if err != nil {
		t.Fatalf("read from %s: %v", c.Path, err)
	}
	return strings.TrimSpace(line)
}

// run an injection that must be complete.
func inject(t testing.TB, r Request) Result {
	t.Helper()
	got, err := Run(t.Context(), self(t), r)
	t.Cleanup(got.Close)
	if err != nil {
		t.Fatalf("Run: %v (%+v)", err, got)
	}
	if !got.Complete {
		t.Fatalf("Run: not complete: %+v", got)
	}
	return got
}

// until a condition holds.
func until(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for range 5000 {
		if holds() {
			return
		}
		time.Sleep(2 * time.Millisecond)
	}
	t.Fatalf("waited for %s in vain", what)
}

func stateOf(pid int) byte {
	s, err := readStat(procPath(pid, "/stat"))
	if err != nil {
		return 0
	}
	return s.state
}

// newGroup in the cgroup v2 tree, wherever it is mounted.
func newGroup(t testing.TB) string {
	t.Helper()
	testenv.NeedRoot(t)
	root := "/sys/fs/cgroup"
	if _, err := os.Stat(root + "/cgroup.procs"); err != nil {
		root += "/unified"
	}
	dir, err := os.MkdirTemp(root, "whittle-inject-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		writeFile(dir+"/cgroup.freeze", "0")
		writeFile(dir+"/cgroup.kill", "1")
		until(t, "the group to empty", func() bool { return os.Remove(dir) == nil })
	})
	return dir
}

func inGroupAttr(t testing.TB, dir string) *syscall.SysProcAttr {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(f.Fd())}
}
