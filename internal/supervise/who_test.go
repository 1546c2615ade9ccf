// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/testenv"
)

// A thread's process is looked up, whichever thread it is and whatever it calls itself.
func TestLookupSelf(t *testing.T) {
	comm, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	const odd = "a) (b\n) R 1 (c"
	if err := os.WriteFile("/proc/self/comm", []byte(odd), 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.WriteFile("/proc/self/comm", comm[:len(comm)-1], 0) })
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(exe, &st); err != nil {
		t.Fatal(err)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	got, err := Lookup(unix.Gettid())
	if err != nil {
		t.Fatal(err)
	}
	want := Task{TGID: os.Getpid(), Start: got.Start, Age: got.Age, Exe: exe, ExeDev: st.Dev, ExeIno: st.Ino, Comm: odd}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got.Start == 0 || got.Age < 0 || got.Age > time.Hour {
		t.Errorf("started at tick %d, %v ago", got.Start, got.Age)
	}
	again, err := Lookup(os.Getpid())
	if err != nil || again.Start != got.Start || again.Age < got.Age {
		t.Errorf("looked up again: %+v, %v, first %+v", again, err, got)
	}
}

func TestLookupNobody(t *testing.T) {
	for _, tid := range []int{-1, 0, 1 << 30} {
		if got, err := Lookup(tid); err == nil {
			t.Errorf("Lookup(%d) = %+v, want an error", tid, got)
		}
		if SameFile(tid, "/bin/sh") {
			t.Errorf("SameFile(%d) found something", tid)
		}
	}
}

// A shell that was exec'd, and a subshell that it forked: the same program, told apart.
func TestLookupForked(t *testing.T) {
	testenv.NeedTool(t, "sh")
	cmd := exec.Command("sh", "-c", "(read x <&3; echo $x) & echo $!; wait")
	tell, hear := pipeFor(t, cmd)
	child, err := strconv.Atoi(hear())
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name   string
		pid    int
		forked bool
	}{{"exec'd", cmd.Process.Pid, false}, {"forked", child, true}} {
		got, err := Lookup(test.pid)
		if err != nil {
			t.Fatal(err)
		}
		if got.TGID != test.pid || got.Forked != test.forked || got.Comm != "sh" {
			t.Errorf("%s: got %+v", test.name, got)
		}
	}
	tell("done")
	if got := hear(); got != "done" {
		t.Errorf("the subshell said %q", got)
	}
}

// pipeFor starts a program that reads descriptor 3 and prints lines.
func pipeFor(t *testing.T, cmd *exec.Cmd) (tell func(string), hear func() string) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.ExtraFiles = []*os.File{r}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = r.Close()
	t.Cleanup(func() { _ = w.Close(); _ = cmd.Wait() })
	lines := bufio.NewReader(out)
	tell = func(s string) {
		if _, err := io.WriteString(w, s+"\n"); err != nil {
			t.Fatal(err)
		}
	}
	hear = func() string {
		s, err := lines.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(s)
	}
	return tell, hear
}

func TestSameFile(t *testing.T) {
	testenv.NeedTool(t, "sh")
	cmd := exec.Command("/bin/sh", "-c", "echo $$; read x <&3")
	_, hear := pipeFor(t, cmd)
	pid, err := strconv.Atoi(hear())
	if err != nil {
		t.Fatal(err)
	}
	real, err := filepath.EvalSymlinks("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink("/../../.."+real, link); err != nil { // stays in the root, as it does for the container
		t.Fatal(err)
	}
	for _, test := range []struct {
		path string
		want bool
	}{
		{"/bin/sh", true},
		{real, true},
		{link, true},
		{strings.TrimPrefix(real, "/"), true}, // of the root, whatever the working directory
		{"/bin/ls", false},
		{"/bin", false},
		{"/", false},
		{"", false},
		{"/nowhere", false},
		{"/bin/sh/", false},
		{"/bin/sh\x00", false},
		{"/" + strings.Repeat("a/", 5000), false},
		{"/proc/self/exe", false}, // a magic link could lead out of the root
		{"/proc/" + strconv.Itoa(pid) + "/exe", false},
	} {
		if test.want {
			_, _ = os.Stat(test.path) // so that the kernel has the names at hand, as after an exec
		}
		if got := SameFile(pid, test.path); got != test.want {
			t.Errorf("SameFile(%q) = %v, want %v", cut(test.path, 40), got, test.want)
		}
	}
}

// What a held thread is can be looked up by its judge.
func TestLookupInJudge(t *testing.T) {
	s := run(t, 1)
	c := newCaller(t)
	judged := make(chan Task, 1)
	add(t, s.Supervisor, 1, c.listener, func(h Held) Verdict {
		task, err := Lookup(h.TID)
		if err != nil || !h.Valid() {
			t.Errorf("%+v, %v, valid: %v", task, err, h.Valid())
		}
		judged <- task
		return Verdict{Allow: true}
	})
	if _, errno := c.call(unix.SYS_GETPPID); errno != 0 {
		t.Error(errno)
	}
	if task := <-judged; task.TGID != os.Getpid() || c.tid == os.Getpid() {
		t.Errorf("thread %d is of process %d, want %d", c.tid, task.TGID, os.Getpid())
	}
}

func BenchmarkLookup(b *testing.B) {
	for b.Loop() {
		if _, err := Lookup(os.Getpid()); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSameFile(b *testing.B) {
	exe, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if !SameFile(os.Getpid(), exe) {
			b.Fatal("not the same")
		}
	}
}
