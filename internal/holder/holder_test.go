// SPDX-License-Identifier: Apache-2.0

package holder

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/testenv"
)

// This binary is also the holder, an agent and an OCI runtime's user, as processes of their own.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "holder":
			os.Exit(report(holderMain(os.Args[2:])))
		case "container":
			os.Exit(report(containerMain()))
		case "agent":
			os.Exit(report(agentMain(os.Args[2])))
		}
	}
	testenv.Main(m)
}

func report(err error) int {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func holderMain(args []string) error {
	var c Config
	flags := flag.NewFlagSet("holder", flag.ExitOnError)
	flags.StringVar(&c.Control, "control", "", "")
	flags.StringVar(&c.Listener, "listener", "", "")
	flags.StringVar(&c.Group, "group", "", "")
	flags.DurationVar(&c.Wait, "wait", 0, "")
	flags.DurationVar(&c.Linger, "linger", 0, "")
	detach := flags.Bool("detach", false, "")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *detach {
		return Detach(os.Args[0], c)
	}
	c.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	ctx, cancel := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer cancel()
	return Serve(ctx, c)
}

// agentMain connects, says how many listeners there are, and hangs.
func agentMain(control string) error {
	client, err := Dial(context.Background(), control)
	if err != nil {
		return err
	}
	fmt.Println(len(client.Listeners()))
	select {}
}

// container is a process, this binary again, whose only busy thread is under a filter that holds mkdirat.
type container struct {
	fd   int // its listener; the test's
	conn *net.UnixConn
	cmd  *exec.Cmd
	end  func()
}

// mkdirat asks for no directory that could be made: ENOENT when the call is let through.
const letThrough = unix.ENOENT

// newContainer is a process and not a thread of this one: the threads that Go makes when a locked one ends inherit its filter.
func newContainer(t *testing.T) *container {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	near, far := os.NewFile(uintptr(pair[0]), "near"), os.NewFile(uintptr(pair[1]), "far")
	defer near.Close()
	defer far.Close()
	conn, err := net.FileConn(near)
	if err != nil {
		t.Fatal(err)
	}
	c := &container{conn: conn.(*net.UnixConn), cmd: exec.Command(os.Args[0], "container")}
	c.cmd.ExtraFiles, c.cmd.Stderr = []*os.File{far}, os.Stderr
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c.end = sync.OnceFunc(func() {
		kill(c.cmd, unix.SIGKILL)
		c.conn.Close()
	})
	t.Cleanup(func() {
		if c.fd >= 0 {
			unix.Close(c.fd)
		}
		c.end()
	})
	far.Close()
	oob := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := c.conn.ReadMsgUnix(make([]byte, 1), oob)
	if err != nil || n == 0 {
		t.Fatalf("the container does not start: %v", err)
	}
	messages, _ := unix.ParseSocketControlMessage(oob[:n])
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		t.Fatal(err)
	}
	c.fd = fds[0]
	return c
}

// containerMain sends its listener to descriptor 3; then each byte from there is a call, whose errno goes back.
func containerMain() error {
	runtime.LockOSThread()
	prog := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_MKDIRAT, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_USER_NOTIF},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	fprog := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER,
		uintptr(unsafe.Pointer(&fprog)))
	if errno != 0 {
		return errno
	}
	if err := unix.Sendmsg(3, []byte{0}, unix.UnixRights(int(fd)), nil, 0); err != nil {
		return err
	}
	if err := unix.Close(int(fd)); err != nil {
		return err
	}
	path, err := unix.BytePtrFromString("/proc/none/none")
	if err != nil {
		return err
	}
	at, b := unix.AT_FDCWD, []byte{0}
	for {
		if n, err := unix.Read(3, b); n != 1 {
			return err
		}
		_, _, errno := unix.Syscall(unix.SYS_MKDIRAT, uintptr(at), uintptr(unsafe.Pointer(path)), 0)
		b[0] = byte(errno)
		if _, err := unix.Write(3, b); err != nil {
			return err
		}
	}
}

// call begins one.
func (c *container) call() { _, _ = c.conn.Write([]byte{1}) } // what is wrong shows in wants

func (c *container) wants(t *testing.T, want unix.Errno) {
	t.Helper()
	b := []byte{0}
	_ = c.conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.ReadFull(c.conn, b); err != nil {
		t.Fatalf("the call does not return: %v", err)
	}
	if got := unix.Errno(b[0]); got != want {
		t.Errorf("the call returned %v, want %v", got, want)
	}
}

// answer one held call with CONTINUE. A call that a signal of the caller's Go runtime interrupts is held again.
func answer(t *testing.T, fd int) {
	t.Helper()
	for {
		var n notification
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SECCOMP_IOCTL_NOTIF_RECV, uintptr(unsafe.Pointer(&n)))
		if errno == 0 {
			r := response{id: n[0], flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE}
			_, _, errno = unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SECCOMP_IOCTL_NOTIF_SEND, uintptr(unsafe.Pointer(&r)))
		}
		switch errno {
		case 0:
			return
		case unix.ENOENT, unix.EINTR:
		default:
			t.Fatalf("answer: %v", errno)
		}
	}
}

// state as a runtime sends it.
func state(id string) []byte {
	data, err := json.Marshal(specs.ContainerProcessState{
		Version: "1.0.2", Fds: []string{specs.SeccompFdName}, Pid: 4711, Metadata: "meta",
		State: specs.State{Version: "1.0.2", ID: id, Status: specs.StateCreating, Bundle: "/bundle", Annotations: map[string]string{"a": "b"}},
	})
	if err != nil {
		panic(err)
	}
	return data
}

// handOver as runc and crun do it.
func handOver(t *testing.T, path string, data []byte, fds ...int) {
	t.Helper()
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, _, err := conn.WriteMsgUnix(data, unix.UnixRights(fds...), nil); err != nil && !errors.Is(err, unix.EPIPE) {
		t.Fatal(err)
	}
}

// give a container's listener to the holder, and keep none.
func (c *container) give(t *testing.T, path, id string) {
	t.Helper()
	handOver(t, path, state(id), c.fd)
	unix.Close(c.fd)
	c.fd = -1
}

// config in a short directory: a socket's path has at most 107 bytes.
func config(t *testing.T) Config {
	t.Helper()
	dir, err := os.MkdirTemp("", "wh")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return Config{Control: dir + "/c", Listener: dir + "/l", Wait: time.Hour, Linger: -1}
}

// journal is a log that can be read while it is written.
type journal struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.String()
}

// serve in this process. stop ends it, as SIGTERM does.
func serve(t *testing.T, c Config) (log *journal, stop func()) {
	t.Helper()
	log = &journal{}
	c.Log = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- Serve(ctx, c) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Serve: %v", err)
		}
		if t.Failed() {
			t.Log(log)
		}
	})
	t.Cleanup(stop)
	eventually(t, "the holder answers", func() bool { return reachable(c.Listener) })
	return log, stop
}

func reachable(path string) bool {
	conn, err := net.Dial("unix", path)
	if err == nil {
		conn.Close()
	}
	return err == nil
}

// process is a holder of its own, and its pid.
func process(t *testing.T, c Config, env ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0], append([]string{"holder"}, c.Args()...)...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stderr = &journal{}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kill(cmd, unix.SIGKILL) })
	eventually(t, "the holder answers", func() bool { return reachable(c.Listener) })
	return cmd
}

func kill(cmd *exec.Cmd, signal unix.Signal) {
	_ = cmd.Process.Signal(signal)
	_ = cmd.Wait()
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not after a minute: %s", what)
		}
	}
}

func dial(t *testing.T, c Config) *Client {
	t.Helper()
	client, err := Dial(t.Context(), c.Control)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

func next(t *testing.T, client *Client) Kept {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	k, err := client.Next(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(k.FD) })
	return k
}

// listeners of a new connection, once the holder has as many.
func listeners(t *testing.T, c Config, count int) (*Client, []Kept) {
	t.Helper()
	client := dial(t, c)
	list := client.Listeners()
	for len(list) < count {
		list = append(list, next(t, client))
	}
	for _, k := range list {
		t.Cleanup(func() { unix.Close(k.FD) })
	}
	return client, list
}

// agentProcess has connected, and has as many listeners.
func agentProcess(t *testing.T, c Config) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0], "agent", c.Control)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kill(cmd, unix.SIGKILL) })
	line := make([]byte, 8)
	if _, err := io.ReadAtLeast(out, line, 1); err != nil {
		t.Fatalf("the agent says nothing: %v", err)
	}
	return cmd
}

func self(t *testing.T) string {
	t.Helper()
	exe, err := filepath.Abs(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	return exe
}

func lockText(c Config) string {
	data, _ := os.ReadFile(c.Control + ".lock")
	return strings.TrimSpace(string(data))
}
