// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"context"
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func take(t *testing.T, ns *NetNS, p *process) *Listeners {
	t.Helper()
	l, _, err := ListenersOf([]int{p.Process.Pid}, ns)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// mover moves a service from one process to the next.
type mover struct {
	t    *testing.T
	ns   *NetNS
	kind service
	load *load
}

func (m *mover) next(n int) service {
	s := m.kind
	s.Name = fmt.Sprint("s", n)
	return s
}

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// knock at every address: only the successor may answer.
func (m *mover) knock(line *Line, l *Listeners, want string) {
	m.t.Helper()
	for _, at := range l.Ports() {
		for range 3 {
			c, err := line.Knock(within(m.t, time.Minute), at)
			must(m.t, err)
			who, err := converse(c)
			c.Close()
			if err != nil || who != want {
				m.t.Fatalf("a knock at %s was answered by %q (%v), want %s", at, who, err, want)
			}
		}
	}
}

// overlap: two at once.
func (m *mover) overlap(from *process, n int) *process {
	m.t.Helper()
	t, name := m.t, fmt.Sprint("s", n)
	first := take(t, m.ns, from)
	line, err := Form(m.ns, first)
	must(t, err)
	t.Cleanup(func() { line.Close() })
	share, err := Share(m.ns, first.Ports())
	must(t, err)
	t.Cleanup(func() { share.Close() })
	to := start(t, m.ns, m.next(n))
	second := take(t, m.ns, to)
	must(t, line.Admit(second))
	m.knock(line, second, name)
	if got := m.load.answers(name); got != 0 {
		t.Errorf("the successor answered %d requests before its turn", got)
	}
	must(t, line.Turn())
	must(t, first.Close())
	from.end(unix.SIGTERM)
	must(t, line.Release(within(t, time.Minute)))
	must(t, share.Close())
	m.load.served(name, 20)
	must(t, second.Close())
	return to
}

// hold: stop, then start.
func (m *mover) hold(from *process, n int) *process {
	m.t.Helper()
	t, name := m.t, fmt.Sprint("s", n)
	first := take(t, m.ns, from)
	line, err := Form(m.ns, first)
	must(t, err)
	t.Cleanup(func() { line.Close() })
	must(t, line.Hold())
	must(t, first.Close())
	from.end(unix.SIGTERM)
	share, err := Share(m.ns, first.Ports())
	must(t, err)
	t.Cleanup(func() { share.Close() })
	to := start(t, m.ns, m.next(n))
	second := take(t, m.ns, to)
	must(t, line.Admit(second))
	m.knock(line, second, name)
	if got := m.load.answers(name); got != 0 {
		t.Errorf("the successor answered %d requests before its turn", got)
	}
	must(t, line.Turn())
	must(t, line.Release(within(t, time.Minute)))
	must(t, share.Close())
	m.load.served(name, 20)
	must(t, second.Close())
	return to
}

func TestMove(t *testing.T) {
	both := []string{"127.0.0.1:8123"}
	for _, tt := range []struct {
		name    string
		service service
		clients []string
		moves   int
	}{
		{"edge", service{Style: "edge"}, both, 20},
		{"level", service{Style: "level"}, both, 3},
		{"poll", service{Style: "poll"}, both, 3},
		{"accept", service{Style: "accept"}, both, 3},
		{"threads", service{Style: "threads"}, both, 3},
		{"mptcp", service{Style: "go"}, both, 20},
		{"backlog", service{Style: "edge", Backlog: 1}, both, 2},
		{"ipv6", service{Style: "edge", At: []string{"[::1]:8123"}}, []string{"[::1]:8123"}, 2},
		{"any", service{Style: "edge", At: []string{"0.0.0.0:8123"}}, []string{"127.0.0.1:8123", "127.0.0.2:8123"}, 2},
		{"dual", service{Style: "level", At: []string{"[::]:8123"}}, []string{"127.0.0.1:8123", "[::1]:8123"}, 2},
		{"ipv6 mptcp", service{Style: "go", At: []string{"[::1]:8123"}}, []string{"[::1]:8123"}, 2},
		{"dual mptcp", service{Style: "go", At: []string{"[::]:8123"}}, []string{"127.0.0.1:8123", "[::1]:8123"}, 2},
		{"only6", service{Style: "level", Only6: true, At: []string{"[::]:8123", "0.0.0.0:8123"}}, []string{"127.0.0.1:8123", "[::1]:8123"}, 2},
		{"ports", service{Style: "edge", At: []string{"127.0.0.1:8123", "127.0.0.1:8124", "127.0.0.3:8124"}},
			[]string{"127.0.0.1:8123", "127.0.0.1:8124", "127.0.0.3:8124"}, 2},
		{"reuseport", service{Style: "edge", Own: 3}, both, 3},
		{"user namespace", service{Style: "edge", UserNS: true}, both, 2},
		{"uid", service{Style: "edge", UID: 1234}, both, 2},
	} {
		for _, how := range []string{"overlap", "hold"} {
			t.Run(tt.name+"/"+how, func(t *testing.T) {
				ns := space(t)
				if tt.service.At == nil {
					tt.service.At = both
				}
				m := &mover{t: t, ns: ns, kind: tt.service}
				p := start(t, ns, m.next(0))
				m.load = clients(t, ns, 6, tt.clients...)
				defer m.load.end()
				m.load.served("s0", 50)
				for n := 1; n <= tt.moves; n++ {
					if how == "hold" {
						p = m.hold(p, n)
					} else {
						p = m.overlap(p, n)
					}
				}
			})
		}
	}
}
