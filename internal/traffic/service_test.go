// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/testenv"
)

// The test binary is the services too: childVar has what it is to be.
const childVar = "TRAFFIC_TEST_CHILD"

func TestMain(m *testing.M) {
	if what := os.Getenv(childVar); what != "" {
		var s service
		if err := json.Unmarshal([]byte(what), &s); err != nil {
			panic(err)
		}
		if err := s.run(); err != nil {
			fmt.Fprintln(os.Stderr, "service:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	testenv.Main(m)
}

// service that answers each connection's line with its name.
type service struct {
	Name    string
	At      []string // addresses; "[::]:80" serves both families
	Only6   bool
	Style   string // how it waits: "accept", "threads", "level", "edge", "poll", "go" (MPTCP), "deaf" (never accepts)
	Own     int    // sockets of its own at each address, with SO_REUSEPORT; 0: one, without
	NoReuse bool   // without SO_REUSEADDR
	Backlog int
	UID     int
	UserNS  bool // in a user namespace of its own, as its root
	Boot    time.Duration
	Steerer string // it is no service, but a process with a Line: see killed_test.go
	PID     int
	Extra   bool // has other sockets too
	Churn   bool // exchanges its descriptors all the time
	Files   int  // descriptors besides
}

func (s service) run() error {
	if s.Steerer != "" {
		return s.steer()
	}
	if s.UID != 0 {
		if err := syscall.Setuid(s.UID); err != nil {
			return err
		}
	}
	time.Sleep(s.Boot)
	if s.Files > 0 {
		if err := s.crowd(); err != nil {
			return err
		}
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	var busy sync.WaitGroup
	var closers []func()
	for _, at := range s.At {
		for range max(s.Own, 1) {
			closer, err := s.listen(at, &busy)
			if err != nil {
				return err
			}
			closers = append(closers, closer)
		}
	}
	if s.Extra {
		if err := extra(s.Name); err != nil {
			return err
		}
	}
	if s.Churn {
		if err := s.churn(); err != nil {
			return err
		}
	}
	fmt.Println("ready")
	<-stop
	for _, c := range closers {
		c()
	}
	busy.Wait()
	return nil
}

func (s service) listen(at string, busy *sync.WaitGroup) (func(), error) {
	answer := func(c io.ReadWriteCloser) {
		defer c.Close()
		if line, err := bufio.NewReader(c).ReadString('\n'); err == nil {
			fmt.Fprintf(c, "%s %s", s.Name, line)
		}
	}
	if s.Style == "go" {
		l, err := net.Listen("tcp", at)
		if err != nil {
			return nil, err
		}
		busy.Go(func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				busy.Go(func() { answer(c) })
			}
		})
		return func() { l.Close() }, nil
	}
	fd, err := s.socket(at)
	if err != nil {
		return nil, err
	}
	serve := func(fd int) { busy.Go(func() { answer(os.NewFile(uintptr(fd), "connection")) }) }
	switch s.Style {
	case "deaf":
	case "accept", "threads":
		for range map[string]int{"accept": 1, "threads": 3}[s.Style] {
			busy.Go(func() { acceptBlocking(fd, serve) })
		}
		// Who sleeps in accept has the socket: it is told, and the socket closes when the process ends.
		return func() { unix.Shutdown(fd, unix.SHUT_RD) }, nil
	default:
		done := make(chan struct{})
		go s.acceptReady(fd, serve, done)
		return func() { <-stopped(fd, done) }, nil
	}
	return func() { unix.Close(fd) }, nil
}

func stopped(fd int, done chan struct{}) chan struct{} {
	// Whoever polls is told, and closes the socket itself.
	unix.Shutdown(fd, unix.SHUT_RD)
	return done
}

func (s service) socket(at string) (int, error) {
	addr := netip.MustParseAddrPort(at)
	family := unix.AF_INET
	if addr.Addr().Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	set := func(level, option int, on bool) {
		if on {
			err = errors.Join(err, unix.SetsockoptInt(fd, level, option, 1))
		}
	}
	set(unix.SOL_SOCKET, unix.SO_REUSEADDR, !s.NoReuse)
	set(unix.SOL_SOCKET, unix.SO_REUSEPORT, s.Own > 0)
	set(unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, s.Only6 && family == unix.AF_INET6)
	set(unix.IPPROTO_TCP, unix.TCP_NODELAY, true)
	if err == nil {
		err = unix.Bind(fd, sockaddr(family, addr))
	}
	backlog := s.Backlog
	if backlog == 0 {
		backlog = 128
	}
	if err == nil {
		err = unix.Listen(fd, backlog)
	}
	return fd, err
}

func acceptBlocking(fd int, serve func(int)) {
	for {
		c, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
		if err != nil {
			if errors.Is(err, unix.EINTR) || errors.Is(err, unix.ECONNABORTED) {
				continue
			}
			return
		}
		serve(c)
	}
}

// acceptReady waits by poll or epoll. Edge-triggered it accepts all there are, level-triggered and by poll one at a time.
func (s service) acceptReady(fd int, serve func(int), done chan struct{}) {
	defer close(done)
	defer unix.Close(fd)
	unix.SetNonblock(fd, true)
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		panic(err)
	}
	defer unix.Close(ep)
	event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}
	if s.Style == "edge" {
		event.Events |= unix.EPOLLET
	}
	if err := unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, fd, &event); err != nil {
		panic(err)
	}
	for {
		if s.Style == "poll" {
			_, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
		} else {
			_, err = unix.EpollWait(ep, make([]unix.EpollEvent, 4), -1)
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
		for {
			c, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
			if errors.Is(err, unix.EINVAL) {
				return // it listens no more
			}
			if err != nil {
				break
			}
			serve(c)
			if s.Style != "edge" {
				break
			}
		}
	}
}

// process of a test.
type process struct {
	*exec.Cmd
	t     *testing.T
	out   *bufio.Reader
	ended bool
}

func command(t *testing.T, s service) *process {
	t.Helper()
	what, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	p := &process{Cmd: exec.Command("/proc/self/exe"), t: t}
	p.Env = append(os.Environ(), childVar+"="+string(what), "GORACE=atexit_sleep_ms=0")
	p.Stderr = os.Stderr
	if s.UserNS {
		one := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 100000, Size: 1}}
		p.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: one, GidMappings: one}
	}
	return p
}

func (p *process) run(ns *NetNS) {
	p.t.Helper()
	out, err := p.StdoutPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	p.out = bufio.NewReader(out)
	if err := ns.Do(p.Start); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { p.end(unix.SIGKILL) })
}

// launch in the namespace, without waiting.
func launch(t *testing.T, ns *NetNS, s service) *process {
	t.Helper()
	p := command(t, s)
	p.run(ns)
	return p
}

func start(t *testing.T, ns *NetNS, s service) *process {
	t.Helper()
	p := launch(t, ns, s)
	p.expect("ready")
	return p
}

func (p *process) expect(want string) {
	p.t.Helper()
	line, err := p.out.ReadString('\n')
	if err != nil || strings.TrimSpace(line) != want {
		p.t.Fatalf("the process says %q (%v), want %q", line, err, want)
	}
}

// end sends the signal and waits.
func (p *process) end(signal syscall.Signal) {
	if p.ended {
		return
	}
	p.ended = true
	if err := p.Process.Signal(signal); err != nil {
		p.t.Errorf("signal a service: %v", err)
	}
	_ = p.Wait() // it was told to end
}

// space is a new network namespace.
func space(t *testing.T) *NetNS {
	t.Helper()
	testenv.NeedRoot(t)
	var ns *NetNS
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			err = loopbackUp()
		}
		if err == nil {
			ns, err = openNetNS("/proc/thread-self/ns/net")
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return ns
}
