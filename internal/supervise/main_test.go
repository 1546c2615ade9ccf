// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/testenv"
)

// helperEnv makes the test binary a process under a filter: its value says what it does.
const helperEnv = "WHITTLE_SUPERVISE_HELPER"

func TestMain(m *testing.M) {
	if mode, ok := os.LookupEnv(helperEnv); ok {
		helper(mode)
		return
	}
	testenv.Main(m)
}

// magic in the sixth argument is what the tests' filter holds, whatever the number: the Go runtime's own calls, which are
// made on the same threads, go through.
const magic = 0x77686974

func held(nr uintptr, args ...uintptr) (uintptr, unix.Errno) {
	var a [5]uintptr
	copy(a[:], args)
	r, _, errno := unix.Syscall6(nr, a[0], a[1], a[2], a[3], a[4], magic)
	return r, errno
}

// install the filter in this thread, or in all of this process.
func install(flags uintptr) (listener int, err error) {
	const sixthArgument = 16 + 5*8 // in struct seccomp_data
	code := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: sixthArgument},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: magic, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_USER_NOTIF},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	program := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER|flags, uintptr(unsafe.Pointer(&program)))
	runtime.KeepAlive(code)
	if errno != 0 {
		return -1, fmt.Errorf("install the filter: %w", errno)
	}
	return int(fd), nil
}

// caller is one thread of the test's own process under a filter of its own. It ends with the test.
type caller struct {
	listener, tid int
	do            chan func()
	ended         chan struct{}
	once          sync.Once
}

func newCaller(t testing.TB) *caller {
	t.Helper()
	testenv.NeedRoot(t)
	c := &caller{do: make(chan func()), ended: make(chan struct{})}
	ready := make(chan error)
	go c.live(ready)
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.end)
	return c
}

// live on a thread that ends with the goroutine, and its filter with it: locked, never unlocked. The main thread does
// not end, so a goroutine that finds itself there keeps it and starts another.
func (c *caller) live(ready chan<- error) {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		go c.live(ready)
		<-c.ended
		runtime.UnlockOSThread()
		return
	}
	defer close(c.ended)
	var err error
	c.tid = unix.Gettid()
	c.listener, err = install(0)
	ready <- err
	for f := range c.do {
		f()
	}
}

// call on the caller's thread.
func (c *caller) call(nr uintptr, args ...uintptr) (r uintptr, errno unix.Errno) {
	done := make(chan struct{})
	c.do <- func() { r, errno = held(nr, args...); close(done) }
	<-done
	return r, errno
}

// start a call without waiting for it.
func (c *caller) start(nr uintptr, args ...uintptr) <-chan unix.Errno {
	out := make(chan unix.Errno, 1)
	c.do <- func() { _, errno := held(nr, args...); out <- errno }
	return out
}

func (c *caller) end() {
	c.once.Do(func() { close(c.do) })
	<-c.ended
}

// waiting returns once a listener has a call.
func waiting(t testing.TB, listener int) {
	t.Helper()
	fds := []unix.PollFd{{Fd: int32(listener), Events: unix.POLLIN}}
	for {
		if _, err := unix.Poll(fds, -1); err != unix.EINTR {
			if err != nil || fds[0].Revents&unix.POLLIN == 0 {
				t.Fatalf("poll listener %d: %v, events %#x", listener, err, fds[0].Revents)
			}
			return
		}
	}
}

// running is a supervisor that runs until stop, or the end of the test.
type running struct {
	*Supervisor
	stop func()
}

func run(t testing.TB, workers int) running {
	t.Helper()
	testenv.NeedRoot(t)
	s, err := newSupervisor(slog.New(slog.DiscardHandler), workers)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stopped := false
	stop := func() {
		if !stopped {
			stopped = true
			cancel()
			if err := <-done; err != nil {
				t.Errorf("Run: %v", err)
			}
		}
	}
	t.Cleanup(func() { stop(); s.Close() })
	return running{s, stop}
}

func add(t testing.TB, s *Supervisor, c Container, listener int, j Judge) {
	t.Helper()
	if err := s.Add(c, listener, j); err != nil {
		t.Fatal(err)
	}
}

func refuse(errno unix.Errno) Judge {
	return func(Held) Verdict { return Verdict{Errno: int32(errno)} }
}

func allow(Held) Verdict { return Verdict{Allow: true} }

// balanced stops a supervisor, since an answer is counted after it is given, and fails unless every call that was received
// was accounted for once.
func (r running) balanced(t testing.TB) Counters {
	t.Helper()
	r.stop()
	return balanced(t, r.Supervisor)
}

func balanced(t testing.TB, s *Supervisor) Counters {
	t.Helper()
	c := s.Answered()
	if c.Received != c.Allowed+c.Refused+c.Gone+c.Errors+c.Parked || c.Errors != 0 || c.Lost != 0 {
		t.Errorf("the counters do not balance: %+v", c)
	}
	return c
}

// process is a helper under a filter: what it prints, and what it is told.
type process struct {
	t        testing.TB
	cmd      *exec.Cmd
	listener int
	in       io.WriteCloser
	out      *bufio.Reader
	waited   bool
}

func newProcess(t testing.TB, mode string, files ...*os.File) *process {
	t.Helper()
	testenv.NeedRoot(t)
	p := &process{t: t, cmd: exec.Command("/proc/self/exe")}
	p.cmd.Env = append(os.Environ(), helperEnv+"="+mode)
	p.cmd.ExtraFiles = files
	p.cmd.Stderr = os.Stderr
	var err error
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.out = bufio.NewReader(out)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	fd, err := strconv.Atoi(p.line())
	if err != nil {
		t.Fatal(err)
	}
	pidfd, err := unix.PidfdOpen(p.cmd.Process.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(pidfd) }()
	if p.listener, err = unix.PidfdGetfd(pidfd, fd, 0); err != nil {
		t.Fatal(err)
	}
	p.tell("go")
	return p
}

func (p *process) tell(s string) {
	p.t.Helper()
	if _, err := io.WriteString(p.in, s+"\n"); err != nil {
		p.t.Fatal(err)
	}
}

func (p *process) line() string {
	p.t.Helper()
	s, err := p.out.ReadString('\n')
	if err != nil {
		p.t.Fatalf("read from the helper: %v", err)
	}
	return strings.TrimSpace(s)
}

func (p *process) kill() {
	if !p.waited {
		p.waited = true
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
	}
}
