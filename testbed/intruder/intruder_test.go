// SPDX-License-Identifier: Apache-2.0

package intruder

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/syscalls"
	"github.com/whittle-sec/whittle/internal/testenv"
)

// sleeper is this program as a child that has no C library and waits.
const sleeper = "INTRUDER_TEST_SLEEPER"

func TestMain(m *testing.M) {
	if os.Getenv(sleeper) != "" {
		fmt.Println("up")
		_, _ = os.Stdin.Read(make([]byte, 1))
		os.Exit(7)
	}
	os.Exit(testenv.Checked(m).Run())
}

// start a child that says when it is up, and waits for its stdin. Its memory is as the kernel made it: no filter.
func start(t *testing.T, args ...string) (*exec.Cmd, io.Closer) {
	t.Helper()
	testenv.NeedRoot(t)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), sleeper+"=1")
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
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "up\n" {
		t.Fatalf("the child says %q: %v", line, err)
	}
	return cmd, in
}

// child that ends with 7 when its stdin is closed.
func child(t *testing.T, args ...string) (pid int, end func()) {
	t.Helper()
	cmd, in := start(t, args...)
	over := false
	end = func() {
		if over {
			return
		}
		over = true
		_ = in.Close()
		if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 7 {
			t.Errorf("the child did not go on as if nothing had been: %v", err)
		}
	}
	t.Cleanup(end)
	return cmd.Process.Pid, end
}

// waits is a shell of the distribution: it has a C library.
var waits = []string{"/bin/sh", "-c", "echo up; read x; exit 7"}

// TestOrigins: each is the memory that it says, the call is made there, and the process goes on.
func TestOrigins(t *testing.T) {
	const libc = `/libc[.-]\S+$`
	want := map[Origin]string{
		Waiting: ` r-xp .*` + libc, Libc: ` r-xp .*` + libc, Vdso: ` r-xp .*\[vdso\]$`,
		Anonymous: `^\S+ rwxp 00000000 00:00 0\s*$`, Protected: `^\S+ r-xp 00000000 00:00 0\s*$`,
		Stack: ` rwxp .*\[stack\]$`, Heap: ` rwxp .*\[heap\]$`, Memfd: ` r-xp .* /memfd:intruder \(deleted\)$`,
		Writable: ` rwxp .*` + libc, Text: ` r-xp .*` + libc, Dropped: ` r-xp .* /tmp/dropped-\S+\.so$`,
	}
	for _, origin := range Origins {
		t.Run(origin.String(), func(t *testing.T) {
			args, pattern := waits, want[origin]
			if origin == Program {
				args, pattern = os.Args[:1], ` r-xp .* `+regexp.QuoteMeta(os.Args[0])+`$`
			}
			pid, end := child(t, args...)
			before := mapsOf(t, pid)
			call, err := Of(nativeABI, "getppid")
			if err != nil {
				t.Fatal(err)
			}
			results, err := Make(pid, origin, call, call)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range results {
				if r.Value != int64(os.Getpid()) || r.Waits {
					t.Errorf("the call returned %d, want %d", r.Value, os.Getpid())
				}
				if !regexp.MustCompile(pattern).MatchString(r.Mapping) {
					t.Errorf("it was made from %q, want %s", r.Mapping, pattern)
				}
			}
			if modified := !fileBacked(t, pid, results[0].IP-1); modified != (origin == Text) && strings.Contains(results[0].Mapping, " r-xp ") && !origin.Injected() {
				t.Errorf("its page was modified: %v", modified)
			} else if origin == Text && !modified {
				t.Error("its page was not modified")
			}
			after := mapsOf(t, pid)
			if origin == Program { // a Go program's runtime maps memory when it likes
				data := func(line string) bool { return !strings.Contains(line, " r-xp ") }
				before, after = slices.DeleteFunc(before, data), slices.DeleteFunc(after, data)
			}
			if origin != Heap && !slices.Equal(before, after) {
				t.Errorf("its memory was\n%s\nand is\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
			}
			for _, line := range after {
				if strings.Contains(line, " rwx") {
					t.Errorf("left behind: %s", line)
				}
			}
			end()
		})
	}
}

func mapsOf(t *testing.T, pid int) []string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(string(text), "\n")
}

// fileBacked by bit 61 of its page (Documentation/admin-guide/mm/pagemap.rst).
func fileBacked(t *testing.T, pid int, at uint64) bool {
	t.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/%d/pagemap", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var entry [8]byte
	if _, err := f.ReadAt(entry[:], int64(at/pageSize*8)); err != nil {
		return false // [vdso] and what is gone
	}
	return binary.LittleEndian.Uint64(entry[:])&(1<<61) != 0
}

// TestNamed: no call does harm, and none is answered as a filter would, by a process without rights and without a filter.
func TestNamed(t *testing.T) {
	testenv.NeedTool(t, "setpriv")
	pid, end := child(t, append([]string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all"}, waits...)...)
	for _, name := range Names() {
		call, err := Named(name)
		if err != nil {
			t.Fatal(err)
		}
		results, err := Make(pid, Libc, call)
		if err != nil {
			t.Fatal(err)
		}
		r := results[0]
		refusal := r.Value == -int64(unix.EPERM) || r.Value == -int64(unix.ENOSYS)
		if refusal != Mute(name) || r.Waits {
			t.Errorf("%s returned %d (%v), waits %v", name, r.Value, unix.Errno(-r.Value), r.Waits)
		}
	}
	end()
}

// TestForeign: calls of i386 are made, those of x32 at least tried, and nothing else happens.
func TestForeign(t *testing.T) {
	if nativeABI != syscalls.X86_64 {
		return // no other ABI can be called there
	}
	pid, end := child(t, waits...)
	i386, err := Of(syscalls.I386, "getppid")
	if err != nil {
		t.Fatal(err)
	}
	x32, err := Of(syscalls.X32, "getppid")
	if err != nil {
		t.Fatal(err)
	}
	results, err := Make(pid, Anonymous, i386, x32)
	if err != nil {
		t.Fatal(err)
	}
	for n, r := range results {
		if r.Value != int64(os.Getpid()) && r.Value != -int64(unix.ENOSYS) { // the kernel may have neither
			t.Errorf("call %d returned %d", n, r.Value)
		}
	}
	end()
}

// TestWaits: a call that does not return is interrupted.
func TestWaits(t *testing.T) {
	pid, end := child(t, waits...)
	call, err := Of(nativeABI, "ppoll")
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	results, err := Make(pid, Libc, call)
	if err != nil || !results[0].Waits || time.Since(began) < Limit {
		t.Errorf("%+v, %v", results, err)
	}
	end()
}

// TestEnded: a process that ends meanwhile, or is not there, is an error.
func TestEnded(t *testing.T) {
	cmd, in := start(t, waits...)
	defer func() { _ = cmd.Wait() }() // the tracer may have waited for it
	defer in.Close()
	call, err := Of(nativeABI, "exit_group", 7)
	if err != nil {
		t.Fatal(err)
	}
	var end *ended
	if results, err := Make(cmd.Process.Pid, Waiting, call); !errors.As(err, &end) || end.status.ExitStatus() != 7 {
		t.Errorf("%+v, %v", results, err)
	}
	if _, err := Make(1<<30, Waiting, call); err == nil {
		t.Error("no process makes calls")
	}
}

// TestKilled: what kills the process is told.
func TestKilled(t *testing.T) {
	cmd, in := start(t, waits...)
	defer func() { _ = cmd.Wait() }() // the tracer may have waited for it
	defer in.Close()
	pid := cmd.Process.Pid
	call, err := Of(nativeABI, "kill", uint64(pid), uint64(unix.SIGKILL))
	if err != nil {
		t.Fatal(err)
	}
	if results, err := Make(pid, Libc, call, call); err != nil || len(results) != 1 || results[0].Killed != unix.SIGKILL {
		t.Errorf("%+v, %v", results, err)
	}
}

// TestFirstThreadKilled: a filter of some kinds kills only the thread, and then the others keep the process.
func TestFirstThreadKilled(t *testing.T) {
	cmd, in := start(t, os.Args[0]) // Go's runtime has threads
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	defer in.Close()
	call, err := Of(nativeABI, "exit", 7)
	if err != nil {
		t.Fatal(err)
	}
	var end *ended
	if results, err := Make(cmd.Process.Pid, Program, call); !errors.As(err, &end) || end.status.ExitStatus() != 7 {
		t.Errorf("%+v, %v", results, err)
	}
}
