// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// untouched fails unless the sockets are as a service that set no SO_REUSEPORT made them, with no program.
func untouched(t *testing.T, l *Listeners) {
	t.Helper()
	must(t, l.open(func(s *socket) error {
		port, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_REUSEPORT)
		if err != nil || port != 0 {
			t.Errorf("SO_REUSEPORT of %s is %d (%v)", s.shown(), port, err)
		}
		if err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_DETACH_REUSEPORT_BPF, 0); err == nil && !s.mptcp {
			t.Errorf("a program was still attached at %s", s.shown())
		}
		return nil
	}))
}

func migrates(t *testing.T, ns *NetNS) string {
	t.Helper()
	var text []byte
	must(t, ns.Do(func() error {
		var err error
		text, err = os.ReadFile(migrationSetting)
		return err
	}))
	return strings.TrimSpace(string(text))
}

func TestRollback(t *testing.T) {
	const at = "127.0.0.1:8123"
	for _, style := range []string{"edge", "go"} {
		for _, tt := range []struct {
			name  string
			until func(*Line) error
		}{
			{"formed", func(*Line) error { return nil }},
			{"held", (*Line).Hold},
			{"turned", (*Line).Turn},
			{"held and turned", func(l *Line) error { return errors.Join(l.Hold(), l.Turn()) }},
			{"held and returned", func(l *Line) error { return errors.Join(l.Hold(), l.Return()) }},
			{"turned and returned", func(l *Line) error { return errors.Join(l.Turn(), l.Return()) }},
		} {
			t.Run(style+"/"+tt.name, func(t *testing.T) {
				ns := space(t)
				before := migrates(t, ns)
				kind := service{Style: style, At: []string{at}, Name: "s0"}
				first := start(t, ns, kind)
				load := clients(t, ns, 4, at)
				defer load.end()
				load.served("s0", 20)
				had := take(t, ns, first)
				line, err := Form(ns, had)
				must(t, err)
				share, err := Share(ns, had.Ports())
				must(t, err)
				defer share.Close()
				kind.Name = "s1"
				second := start(t, ns, kind)
				next := take(t, ns, second)
				must(t, line.Admit(next))
				must(t, tt.until(line))
				must(t, line.Return())
				must(t, next.Close())
				second.end(unix.SIGTERM)
				must(t, line.Close())
				load.served("s0", 20)
				untouched(t, had)
				if got := migrates(t, ns); got != before {
					t.Errorf("tcp_migrate_req is %s, and was %s", got, before)
				}
			})
		}
	}
}

// A successor that does not go away keeps what it should not have from reaching it: the steering stays.
func TestCloseBesideAnother(t *testing.T) {
	const at = "127.0.0.1:8123"
	ns := space(t)
	first := start(t, ns, service{Style: "edge", At: []string{at}, Name: "s0"})
	had := take(t, ns, first)
	line, err := Form(ns, had)
	must(t, err)
	share, err := Share(ns, had.Ports())
	must(t, err)
	defer share.Close()
	start(t, ns, service{Style: "deaf", At: []string{at}, Name: "s1"})
	if err := line.Close(); !errors.Is(err, ErrListens) {
		t.Errorf("closing gave %v, want ErrListens", err)
	}
	for range 20 {
		if got := <-asked(ns, at); got != "s0" {
			t.Fatalf("answered by %q, want s0", got)
		}
	}
}

func TestReleasedAsItWas(t *testing.T) {
	for _, tt := range []struct {
		name string
		kind service
		port int // SO_REUSEPORT of the successor afterwards
	}{
		{"plain", service{Style: "edge"}, 0},
		{"mptcp", service{Style: "go"}, 0},
		{"its own", service{Style: "edge", Own: 2}, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ns := space(t)
			tt.kind.At, tt.kind.Name = []string{"127.0.0.1:8123"}, "s0"
			first := start(t, ns, tt.kind)
			m := &mover{t: t, ns: ns, kind: tt.kind, load: clients(t, ns, 2, tt.kind.At...)}
			defer m.load.end()
			after := take(t, ns, m.overlap(first, 1))
			must(t, after.open(func(s *socket) error {
				if s.reuseport != tt.port || s.reuseaddr != 1 {
					t.Errorf("SO_REUSEPORT %d, SO_REUSEADDR %d; want %d, 1", s.reuseport, s.reuseaddr, tt.port)
				}
				return nil
			}))
			if tt.port == 0 {
				untouched(t, after)
			}
			if got := migrates(t, ns); got != "0" {
				t.Errorf("tcp_migrate_req is %s", got)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	ns := space(t)
	kind := service{Style: "edge", At: []string{"127.0.0.1:8123", "127.0.0.1:8124"}, Name: "s0"}
	first := start(t, ns, kind)
	had := take(t, ns, first)
	if _, err := Form(ns, &Listeners{}); err == nil {
		t.Error("a line of nobody was formed")
	}
	line, err := Form(ns, had)
	must(t, err)
	defer line.Close()
	if err := line.Turn(); err == nil {
		t.Error("turned to nobody")
	}
	if _, err := line.Knock(t.Context(), had.Ports()[0]); err == nil {
		t.Error("knocked at nobody's")
	}
	must(t, line.Hold())
	if err := line.Release(t.Context()); err == nil {
		t.Error("released what is held to nobody")
	}
	share, err := Share(ns, had.Ports())
	must(t, err)
	defer share.Close()
	half := start(t, ns, service{Style: "edge", At: []string{"127.0.0.1:8124"}, Name: "s1"})
	next := take(t, ns, half)
	if err := line.Admit(next); err == nil || !strings.Contains(err.Error(), "127.0.0.1:8123") {
		t.Errorf("who listens at one port of two was admitted, or the reason does not say which: %v", err)
	}
	must(t, next.Close())
	half.end(unix.SIGKILL)
	must(t, next.Forget(had.Ports()[1]))
	if next.Len() != 0 {
		t.Errorf("%v is still there", next.Ports())
	}
	must(t, line.Close())
	must(t, line.Close())
	if err := line.Hold(); err == nil {
		t.Error("a closed line holds")
	}
}

// Only one user's sockets form a group, and only at ports that are shared, and only in the namespace.
func TestShareIsNarrow(t *testing.T) {
	ns, other := space(t), space(t)
	kind := service{Style: "edge", At: []string{"127.0.0.1:8123"}, Name: "s0"}
	had := take(t, ns, start(t, ns, kind))
	start(t, other, kind)
	line, err := Form(ns, had)
	must(t, err)
	defer line.Close()
	share, err := Share(ns, had.Ports())
	must(t, err)
	defer share.Close()
	for _, tt := range []struct {
		name string
		ns   *NetNS
		kind service
	}{
		{"another user", ns, service{UID: 1234, At: kind.At}},
		{"another namespace", other, kind},
	} {
		tt.kind.Style = "edge"
		p := launch(t, tt.ns, tt.kind)
		if line, err := p.out.ReadString('\n'); err == nil {
			t.Errorf("%s: bound beside: %q", tt.name, line)
		}
	}
}

// Connections of a service without SO_REUSEADDR stand in our way, and the error says so.
func TestNoReuseAddr(t *testing.T) {
	ns := space(t)
	kind := service{Style: "edge", NoReuse: true, At: []string{"127.0.0.1:8123"}, Name: "s0"}
	p := start(t, ns, kind)
	if got := <-asked(ns, kind.At[0]); got != "s0" {
		t.Fatalf("answered by %q", got)
	}
	had := take(t, ns, p)
	_, err := Form(ns, had)
	if err == nil || !strings.Contains(err.Error(), "SO_REUSEADDR") {
		t.Errorf("got %v, want an error that names SO_REUSEADDR", err)
	}
	untouched(t, had)
	if got := <-asked(ns, kind.At[0]); got != "s0" {
		t.Fatalf("answered by %q", got)
	}
}

func TestOneMigrationAtATime(t *testing.T) {
	ns := space(t)
	had := take(t, ns, start(t, ns, service{Style: "go", At: []string{"127.0.0.1:8123"}}))
	line, err := Form(ns, had)
	must(t, err)
	again := take(t, ns, start(t, ns, service{Style: "go", At: []string{"127.0.0.1:8124"}}))
	if _, err := Form(ns, again); err == nil {
		t.Error("two lines change one setting of one namespace")
	}
	must(t, line.Close())
	line, err = Form(ns, again)
	must(t, err)
	must(t, line.Close())
}

func TestSupported(t *testing.T) {
	space(t) // root
	if err := Supported(); err != nil {
		t.Error(err)
	}
}

// Whoever stands beside sockets without holding them leaves them as they were, too: with SO_REUSEPORT a stranger of the same user
// could listen beside the service from then on.
func TestRollbackReopened(t *testing.T) {
	const at = "127.0.0.1:8123"
	for _, style := range []string{"edge", "go"} {
		t.Run(style, func(t *testing.T) {
			ns := space(t)
			first := start(t, ns, service{Style: style, At: []string{at}, Name: "s0"})
			load := clients(t, ns, 4, at)
			defer load.end()
			had := take(t, ns, first)
			line, err := Form(ns, had)
			must(t, err)
			must(t, had.Close())
			load.served("s0", 20)
			must(t, had.Reopen([]int{os.Getpid()}, ns)) // who has none of them
			must(t, had.Reopen([]int{first.Process.Pid}, ns))
			must(t, line.Return())
			must(t, line.Close())
			load.served("s0", 20)
			must(t, had.Close())
			now := take(t, ns, first)
			if now.Len() != 1 {
				t.Errorf("it has %d sockets", now.Len())
			}
			untouched(t, now)
		})
	}
}
