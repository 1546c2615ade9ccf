// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What waits is answered though nobody else ever connects: each way to wait for a connection is woken.
func TestWaitersAreAnswered(t *testing.T) {
	const at, n = "127.0.0.1:8123", 20
	for _, tt := range []struct {
		name    string
		service service
	}{
		{"accept", service{Style: "accept"}}, {"threads", service{Style: "threads"}}, {"poll", service{Style: "poll"}},
		{"level", service{Style: "level"}}, {"edge", service{Style: "edge"}}, {"mptcp", service{Style: "go"}},
		{"backlog", service{Style: "edge", Backlog: 1}}, {"backlog accept", service{Style: "accept", Backlog: 1}},
		{"reuseport", service{Style: "edge", Own: 3}},
	} {
		// In ours, or in the predecessor's own queue, which nobody empties.
		for _, where := range []string{"held", "deaf"} {
			t.Run(tt.name+"/"+where, func(t *testing.T) {
				ns := space(t)
				kind := tt.service
				kind.At, kind.Name = []string{at}, "s0"
				if where == "deaf" {
					kind.Style, kind.Backlog = "deaf", 0
				}
				first := start(t, ns, kind)
				had := take(t, ns, first)
				line, err := Form(ns, had)
				must(t, err)
				defer line.Close()
				if where == "held" {
					must(t, line.Hold())
				}
				var out []chan string
				for range n {
					out = append(out, asked(ns, at))
				}
				until(t, n, func() (int, error) {
					if where == "held" {
						return line.Held()
					}
					return Waiting(had)
				})
				share, err := Share(ns, had.Ports())
				must(t, err)
				defer share.Close()
				kind = tt.service
				kind.At, kind.Name = []string{at}, "s1"
				second := take(t, ns, start(t, ns, kind))
				must(t, line.Admit(second))
				must(t, line.Turn())
				must(t, had.Close())
				first.end(unix.SIGTERM)
				must(t, line.Release(within(t, time.Minute)))
				for _, c := range out {
					if got := <-c; got != "s1" {
						t.Errorf("answered by %q, want s1", got)
					}
				}
			})
		}
	}
}

// Who was told of a connection once, and sleeps with it in the queue, is told again: that is what waking is worth where
// the kernel tells nobody. The socket listens as before.
func TestWake(t *testing.T) {
	ns := space(t)
	must(t, ns.Do(func() error {
		for _, protocol := range []int{unix.IPPROTO_TCP, unix.IPPROTO_MPTCP} {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, protocol)
			must(t, err)
			must(t, unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
			must(t, unix.Listen(fd, 5))
			s, err := describe(fd)
			must(t, err)
			ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
			must(t, err)
			event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: int32(fd)}
			must(t, unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, fd, &event))
			expect := func(when string, want, timeout int) {
				t.Helper()
				if n, err := unix.EpollWait(ep, make([]unix.EpollEvent, 1), timeout); err != nil || n != want {
					t.Errorf("protocol %d, %s: %d events (%v), want %d", protocol, when, n, err, want)
				}
			}
			for range 2 {
				client, err := connect(s.local)
				must(t, err)
				defer unix.Close(client)
				expect("a connection", 1, 60_000)
				expect("nothing new", 0, 0)
				must(t, s.wake())
				expect("woken", 1, 60_000)
			}
			if n, err := s.queued(); err != nil || n != 2 {
				t.Errorf("protocol %d: %d connections wait (%v), want 2", protocol, n, err)
			}
			must(t, unix.Close(ep))
			must(t, unix.Close(fd))
		}
		return nil
	}))
}

func until(t *testing.T, want int, f func() (int, error)) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		got, err := f()
		must(t, err)
		if got == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d connections wait, want %d", got, want)
		}
	}
}
