// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/image"
	"github.com/whittle-sec/whittle/internal/testenv"
)

// masters have servants: containers of runc that make the calls they are told to, all of one workload, and all under one
// agent that may be killed.
type masters struct {
	d        *daemon
	root     string // runc's state
	config   []byte // of each servant's bundle
	workload string // its ID, once it was learned
}

// newMasters with an agent that has learned what a servant does, and enforces it.
func newMasters(t *testing.T, flags ...string) *masters {
	t.Helper()
	ms := learnedMasters(t, flags, nil)
	ms.d.whittle("policy", "mode", ms.workload, "enforce")
	return ms
}

// learnedMasters with an agent that has learned what a servant does: threads, processes, and the held calls of
// learnedCalls.
func learnedMasters(t *testing.T, flags []string, edit func(*specs.Spec)) *masters {
	t.Helper()
	testenv.NeedBPF(t)
	return teach(t, startAgent(t, append(slices.Clone(noEngine), flags...)...), edit)
}

// teach an agent what a servant does.
func teach(t *testing.T, d *daemon, edit func(*specs.Spec)) *masters {
	t.Helper()
	ms := mastersOf(t, d, edit)
	s := ms.start(t, "teacher")
	for _, nr := range learnedCalls {
		s.does("call", nr, 2)
		s.does("threads", 2)
		s.does("begin", nr, 2)
		s.does("join")
	}
	s.does("fork", 1)
	s.quit()
	d.forgotten()
	ms.workload = only(t, d, func(api.Summary) bool { return true }).Workload.ID()
	return ms
}

// learnedCalls are rare and critical, so that each is held and allowed.
var learnedCalls = []int{unix.SYS_PERSONALITY, unix.SYS_SOCKET}

// forbidden was never learned: it is held and refused. Nothing happens where it is not.
const forbidden = unix.SYS_SETFSUID

// mastersOf an agent that has learned nothing yet.
func mastersOf(t *testing.T, d *daemon, edit func(*specs.Spec)) *masters {
	t.Helper()
	testenv.NeedRuntime(t, "runc")
	ms := &masters{d: d, root: t.TempDir()}
	exe := compileServant(t)
	file, err := image.Host(exe, "servant")
	if err != nil {
		t.Fatal(err)
	}
	rootfs := filepath.Join(t.TempDir(), "rootfs")
	unpack(t, rootfs, []image.File{file, image.Dir("proc", 0o555), image.Dir("sys", 0o555), image.Dir("dev", 0o755)})
	b := newBundle(t, d, nil, func(s *specs.Spec) {
		s.Process.Args, s.Root.Path = []string{"/servant"}, rootfs
		// Any filter: a container that was asked to run without one gets none.
		s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchX86_64},
			Syscalls: []specs.LinuxSyscall{{Names: []string{"kexec_load"}, Action: specs.ActErrno}}}
		if edit != nil {
			edit(s)
		}
	})
	if ms.config, err = os.ReadFile(filepath.Join(b.dir, "config.json")); err != nil {
		t.Fatal(err)
	}
	return ms
}

func compileServant(t *testing.T) string {
	t.Helper()
	testenv.NeedGCC(t)
	out := filepath.Join(t.TempDir(), "servant")
	text, err := exec.Command("gcc", "-O1", "-static", "-pthread", "-o", out, "testdata/servant.c").CombinedOutput()
	if err != nil {
		t.Fatalf("compile: %v: %s", err, text)
	}
	return out
}

// servant is one container.
type servant struct {
	t       *testing.T
	ms      *masters
	id      string
	pid     int // of its first process, as the host sees it
	port    int
	cmd     *exec.Cmd
	ended   chan struct{}
	err     error // of runc, once ended is closed
	stderr  *output
	obeying net.Conn
	answers *bufio.Reader
}

// start a servant through the wrapper, and connect to it: it has booted then.
func (ms *masters) start(t *testing.T, name string) *servant {
	t.Helper()
	s, err := ms.launch(t, name)
	if err != nil {
		t.Fatal(err)
	}
	s.connect()
	return s
}

// launch a servant; it may be called from any goroutine.
func (ms *masters) launch(t *testing.T, name string) (*servant, error) {
	bundle, err := os.MkdirTemp(ms.root, "bundle")
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(bundle, "config.json"), ms.config, 0o600); err != nil {
		return nil, err
	}
	s := &servant{t: t, ms: ms, id: containerID(name), ended: make(chan struct{}), stderr: &output{}}
	s.cmd = exec.Command(ms.d.bin, "runtime", "--socket", ms.d.socket, "--real", "runc", "--",
		"--root", ms.root, "run", "--bundle", bundle, s.id)
	s.cmd.Stderr = s.stderr
	stdout, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer stdout.Close()
	s.cmd.Stdout = w
	err = s.cmd.Start()
	w.Close()
	if err != nil {
		return nil, err
	}
	go func() { s.err = s.cmd.Wait(); close(s.ended) }()
	t.Cleanup(s.remove)
	if err := stdout.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	if _, err := fmt.Fscanf(stdout, "port %d\n", &s.port); err != nil {
		return nil, fmt.Errorf("%s does not come up: %w; %s", s.id, err, s.stderr)
	}
	return s, s.state()
}

// state reads the pid from runc's.
func (s *servant) state() error {
	text, err := os.ReadFile(filepath.Join(s.ms.root, s.id, "state.json"))
	if err != nil {
		return err
	}
	var state struct {
		PID int `json:"init_process_pid"`
	}
	if err := json.Unmarshal(text, &state); err != nil || state.PID <= 0 {
		return fmt.Errorf("runc's state of %s: %v: %s", s.id, err, text)
	}
	s.pid = state.PID
	return nil
}

func (s *servant) connect() {
	s.t.Helper()
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", s.port))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close() })
	s.obeying, s.answers = conn, bufio.NewReader(conn)
}

// made is what became of calls.
type made struct {
	good, failed int
	errno        unix.Errno
}

// does what it is told; it may not take longer than patience.
func (s *servant) does(command string, args ...int) made {
	s.t.Helper()
	m, err := s.tell(command, args...)
	if err != nil {
		s.t.Fatal(err)
	}
	return m
}

func (s *servant) tell(command string, args ...int) (m made, err error) {
	s.send(command, args...)
	line, err := s.answer()
	if err != nil {
		return m, fmt.Errorf("%s does not %s %v: %w; %s", s.id, command, args, err, s.threads())
	}
	var errno int
	if _, err := fmt.Sscanf(line, "made %d %d %d", &m.good, &m.failed, &errno); err != nil {
		return m, fmt.Errorf("%s says %q: %w", s.id, line, err)
	}
	m.errno = unix.Errno(errno)
	return m, nil
}

func (s *servant) send(command string, args ...int) {
	for _, a := range args {
		command += " " + strconv.Itoa(a)
	}
	_, _ = s.obeying.Write([]byte(command + "\n")) // the answer will not come then
}

func (s *servant) answer() (string, error) {
	if err := s.obeying.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	return s.answers.ReadString('\n')
}

// allowed makes a learned call and expects that all of them are let through.
func (s *servant) allowed(nr, count int) {
	s.t.Helper()
	if m := s.does("call", nr, count); m.good != count || m.failed != 0 {
		s.t.Errorf("%s: of %d allowed calls %d failed: %v", s.id, count, m.failed, m.errno)
	}
}

// refused makes a call that was never learned.
func (s *servant) refused(count int) {
	s.t.Helper()
	if m := s.does("call", forbidden, count); m.good != 0 {
		s.t.Errorf("%s: %d calls that were never learned were let through", s.id, m.good)
	}
}

// filters of its first process.
func (s *servant) filters() int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.pid))
	if err != nil {
		s.t.Error(err)
	}
	_, rest, _ := strings.Cut(string(text), "Seccomp_filters:")
	field, _, _ := strings.Cut(rest, "\n")
	n, err := strconv.Atoi(strings.TrimSpace(field))
	if err != nil {
		s.t.Error(err)
	}
	return n
}

// held is how many of its threads wait for an answer.
func (s *servant) held() (n int) {
	names, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/wchan", s.pid)) // the pattern is right
	for _, name := range names {
		if text, err := os.ReadFile(name); err == nil && strings.Contains(string(text), "seccomp") {
			n++
		}
	}
	return n
}

// threads says where they are, for messages.
func (s *servant) threads() string {
	found := map[string]int{}
	names, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", s.pid)) // the pattern is right
	for _, name := range names {
		call, _ := os.ReadFile(name + "/syscall")
		wchan, _ := os.ReadFile(name + "/wchan")
		nr, _, _ := strings.Cut(string(call), " ")
		found[strings.TrimSpace(nr)+" in "+string(wchan)]++
	}
	return fmt.Sprintf("its threads: %v", found)
}

// supervised waits until the agent shows that the servant's calls are held for it.
func (s *servant) supervised() api.Container {
	s.t.Helper()
	return s.ms.d.container(s.id, "is supervised", func(c api.Container) bool {
		return c.Supervision != nil && c.Supervision.Listeners > 0
	})
}

// quit ends it by itself.
func (s *servant) quit() {
	s.t.Helper()
	s.send("quit")
	s.awaitEnd()
}

func (s *servant) awaitEnd() {
	s.t.Helper()
	select {
	case <-s.ended:
	case <-time.After(patience):
		s.t.Fatalf("%s does not end; %s", s.id, s.threads())
	}
}

// alive tells whether its first process runs.
func (s *servant) alive() bool {
	return !errors.Is(unix.Kill(s.pid, 0), unix.ESRCH)
}

// remove what is left of it.
func (s *servant) remove() {
	b := bundle{root: s.ms.root}
	if err := b.remove(s.id); err != nil {
		s.t.Error(err)
	}
	<-s.ended
}
