// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// extra sockets that cannot be moved, and some that are not to be told: connected, or not listening.
func extra(dir string) error {
	if _, err := net.ListenPacket("udp", "127.0.0.1:5353"); err != nil {
		return err
	}
	if _, err := net.Dial("udp", "127.0.0.1:5354"); err != nil {
		return err
	}
	if _, err := net.Listen("unix", filepath.Join(dir, "a socket")); err != nil {
		return err
	}
	if _, err := net.Listen("unix", "@traffic test"); err != nil {
		return err
	}
	_, err := net.ListenPacket("unixgram", filepath.Join(dir, "datagrams"))
	return err
}

// crowd the table of descriptors, so that what comes later has high numbers.
func (s service) crowd() error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	limit.Cur = limit.Max
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	for range min(s.Files, int(limit.Max)-100) {
		if _, err := unix.Dup(0); err != nil {
			return err
		}
	}
	return nil
}

// churn: a listening socket, a pipe and a lingering connection take each other's place under one number, all the time.
func (s service) churn() error {
	listens, err := s.socket("127.0.0.1:9000")
	if err != nil {
		return err
	}
	var pipe, pair [2]int
	if err := errors.Join(unix.Pipe(pipe[:]), listenAndLinger(&pair)); err != nil {
		return err
	}
	for range 4 {
		place, err := unix.Dup(listens)
		if err != nil {
			return err
		}
		go func() {
			for {
				for _, fd := range []int{pipe[0], listens, pair[0]} {
					unix.Dup2(fd, place)
				}
			}
		}()
	}
	return nil
}

func listenAndLinger(pair *[2]int) error {
	l, err := net.Listen("tcp4", "127.0.0.1:9001")
	if err != nil {
		return err
	}
	defer l.Close()
	c, err := net.Dial("tcp4", "127.0.0.1:9001")
	if err != nil {
		return err
	}
	file, err := c.(*net.TCPConn).File()
	if err != nil {
		return err
	}
	pair[0], err = unix.Dup(int(file.Fd()))
	return errors.Join(err, unix.SetsockoptLinger(pair[0], unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: 3600}))
}

func TestHostileDescriptors(t *testing.T) {
	ns := space(t)
	at := []string{"127.0.0.1:8123", "[::1]:8123"}
	for _, tt := range []struct {
		name string
		kind service
		want int
	}{
		{"many", service{Files: 30000}, 2},
		{"churn", service{Churn: true}, 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.kind.Style, tt.kind.At = "edge", at
			p := start(t, ns, tt.kind)
			defer p.end(unix.SIGKILL)
			for range 20 {
				l, _, err := ListenersOf([]int{p.Process.Pid}, ns)
				if err != nil {
					if tt.kind.Churn && strings.Contains(err.Error(), "exchange their open files") {
						continue // it may say so, and not wait
					}
					t.Fatal(err)
				}
				if l.Len() != tt.want {
					t.Errorf("%d sockets, want %d: %v", l.Len(), tt.want, l.Ports())
				}
				must(t, l.Close())
			}
		})
	}
}

func TestTooManyListeners(t *testing.T) {
	ns := space(t)
	p := start(t, ns, service{Style: "deaf", At: []string{"127.0.0.1:8123"}, Own: maxListeners + 1})
	if _, _, err := ListenersOf([]int{p.Process.Pid}, ns); err == nil {
		t.Errorf("%d sockets were taken", maxListeners+1)
	}
}

func TestOnlyTheirOwn(t *testing.T) {
	ns, other := space(t), space(t)
	kind := service{Style: "deaf", At: []string{"127.0.0.1:8123"}}
	p := start(t, ns, kind)
	start(t, ns, service{Style: "deaf", At: []string{"127.0.0.1:8124"}})
	gone := start(t, ns, service{Style: "deaf", At: []string{"127.0.0.1:8125"}})
	gone.end(unix.SIGKILL)
	l, _, err := ListenersOf([]int{p.Process.Pid, p.Process.Pid, gone.Process.Pid, 1 << 30}, ns)
	must(t, err)
	defer l.Close()
	if want := []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:8123")}; !reflect.DeepEqual(l.Ports(), want) {
		t.Errorf("got %v, want %v", l.Ports(), want)
	}
	none, _, err := ListenersOf([]int{p.Process.Pid}, other)
	must(t, err)
	defer none.Close()
	if none.Len() != 0 {
		t.Errorf("a socket of another namespace was taken: %v", none.Ports())
	}
}

func TestUnmovable(t *testing.T) {
	ns := space(t)
	dir := t.TempDir()
	start(t, ns, service{Style: "deaf", At: []string{"127.0.0.1:8123"}, Name: t.TempDir()})
	p := start(t, ns, service{Style: "deaf", At: []string{"127.0.0.1:8124"}, Extra: true, Name: dir})
	l, got, err := ListenersOf([]int{p.Process.Pid}, ns)
	must(t, err)
	defer l.Close()
	const datagram, listen = "what it receives is not a connection that could wait", "two processes cannot listen on one unix socket"
	want := []Unmovable{
		{"udp socket", "127.0.0.1:5353", datagram},
		{"unix socket", fmt.Sprintf("%q", filepath.Join(dir, "a socket")), listen},
		{"unix socket", `"@traffic test"`, listen},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestNetNS(t *testing.T) {
	ns := space(t)
	p := start(t, ns, service{Style: "deaf"})
	opened, err := OpenNetNS(p.Process.Pid)
	must(t, err)
	defer opened.Close()
	if opened.ID() != ns.ID() || opened.cookie != ns.cookie {
		t.Errorf("got %d, want %d", opened.ID(), ns.ID())
	}
	own, err := OpenNetNS(os.Getpid())
	must(t, err)
	defer own.Close()
	if own.ID() == ns.ID() {
		t.Error("the process is in the namespace of a thread")
	}
	failed := errors.New("failed")
	if err := ns.Do(func() error { return failed }); !errors.Is(err, failed) {
		t.Errorf("got %v", err)
	}
}
