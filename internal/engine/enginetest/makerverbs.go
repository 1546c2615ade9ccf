// SPDX-License-Identifier: Apache-2.0

package enginetest

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/whittle-sec/whittle/internal/engine"
)

func (b MakerBench) print(t testing.TB, id string) engine.Blueprint {
	t.Helper()
	p, err := b.Engine.Blueprint(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func blueprint(t *testing.T, b MakerBench) {
	data := dataDir(t)
	args := []string{
		"--network", "none", "--rm", "--label", "PODMAN_SYSTEMD_UNIT=web.service", "--stop-timeout", "7", "--health-cmd", "true", "--health-interval=1h",
		"-v", data + ":/data:ro", "-v", "named:/named", "--tmpfs", "/scratch", "-e", "A=b c",
	}
	p := b.print(t, b.run(t, append(args, b.Image, "/bin/sh", "-c", forever)...).ID)
	slices.SortFunc(p.Volumes, func(a, b engine.Mount) int { return strings.Compare(a.Destination, b.Destination) })
	if len(p.Volumes) != 2 || p.Volumes[0] != (engine.Mount{Source: data, Destination: "/data", ReadOnly: true}) ||
		p.Volumes[1].Volume != "named" || p.Volumes[1].ReadOnly || p.Volumes[1].Destination != "/named" {
		t.Errorf("volumes %+v", p.Volumes)
	}
	if !slices.Contains(p.Env, "A=b c") {
		t.Errorf("environment %q", p.Env)
	}
	if !p.AutoRemove || p.SystemdUnit != "web.service" || p.StopTimeout != 7*time.Second || !p.HasHealthcheck || len(p.Problems) > 0 || !p.State.Alive() || p.PID == 0 {
		t.Errorf("blueprint %+v", p)
	}
	p = b.print(t, b.run(t, "--network", "none", "--restart", "always", b.Image, "/bin/sh", "-c", forever).ID)
	if p.AutoRemove || p.RestartPolicy != "always" || p.HasHealthcheck || p.StopTimeout != 10*time.Second || len(p.Volumes)+len(p.Ports)+len(p.Problems) > 0 {
		t.Errorf("blueprint %+v", p)
	}
}

func networks(t *testing.T, b MakerBench) {
	owner := b.run(t, "--name", "owner", "--network", "none", b.Image, "/bin/sh", "-c", forever)
	for _, tt := range []struct {
		said string
		want engine.NetworkMode
	}{
		{"host", engine.NetworkHost},
		{"none", engine.NetworkNone},
		{"container:owner", engine.NetworkMode("container:" + owner.ID)},
	} {
		t.Run(tt.said, func(t *testing.T) {
			first := b.run(t, "--network", tt.said, b.Image, "/bin/sh", "-c", forever)
			if p := b.print(t, first.ID); p.Network != tt.want || !p.NetworkKept {
				t.Errorf("network %q, kept %v; want %q", p.Network, p.NetworkKept, tt.want)
			}
			second := b.like(t, first.ID, engine.Changes{Name: "second"})
			if p := b.print(t, second.ID); p.Network != tt.want {
				t.Errorf("the successor's network %q, want %q", p.Network, tt.want)
			}
		})
	}
	if b.Network == "" {
		return
	}
	t.Run("private", func(t *testing.T) {
		first := b.run(t, "--network", b.Network, "-p", "127.0.0.1:18080:80", "-p18081:81/udp", "-p", "127.0.0.1::82", "--expose", "90", b.Image, "/bin/sh", "-c", forever)
		p := b.print(t, first.ID)
		if p.Network != engine.NetworkPrivate || p.NetworkKept || len(p.Ports) != 3 || len(p.Addresses) == 0 || !p.Addresses[0].Is4() {
			t.Errorf("network %q, kept %v, ports %+v, addresses %v", p.Network, p.NetworkKept, p.Ports, p.Addresses)
		}
		for _, want := range []engine.PublishedPort{
			{HostIP: netip.MustParseAddr("127.0.0.1"), HostPort: 18080, ContainerPort: 80, Protocol: "tcp"},
			{HostPort: 18081, ContainerPort: 81, Protocol: "udp"},
		} {
			if !slices.Contains(p.Ports, want) {
				t.Errorf("ports %+v lack %+v", p.Ports, want)
			}
		}
		second := b.like(t, first.ID, engine.Changes{Name: "second"})
		if got := b.print(t, second.ID); !slices.Equal(got.Ports, p.Ports) || len(got.Addresses) > 0 {
			t.Errorf("the successor's ports are %+v, want %+v; addresses %v", got.Ports, p.Ports, got.Addresses)
		}
		// They are free for it when the first is stopped, and not before.
		if err := b.Engine.Start(t.Context(), second.ID); err == nil {
			t.Error("two have the same ports")
		}
		if err := b.Engine.Stop(t.Context(), first.ID, 0); err != nil {
			t.Fatal(err)
		}
		if err := b.Engine.Start(t.Context(), second.ID); err != nil {
			t.Error(err)
		}
		if got := b.print(t, second.ID); len(got.Addresses) == 0 || !slices.Equal(got.Ports, p.Ports) {
			t.Errorf("ports %+v, addresses %v", got.Ports, got.Addresses)
		}
	})
}

func (b MakerBench) state(t testing.TB, id string, want engine.State) {
	t.Helper()
	if c, err := b.Engine.Inspect(t.Context(), id); err != nil || c.State != want {
		t.Errorf("it is %s (%v), want %s", c.State, err, want)
	}
}

func startStop(t *testing.T, b MakerBench) {
	first := b.run(t, "--network", "none", b.Image, "/bin/sh", "-c", "trap 'echo bye; exit 5' TERM; echo up; while :; do sleep 1 & wait; done")
	made := b.like(t, first.ID, engine.Changes{Name: "second"})
	e, ctx := b.Engine, t.Context()
	if err := e.Stop(ctx, made.ID, time.Second); err != nil { // of one that was never started
		t.Error(err)
	}
	if i, ok := e.(engine.Initializer); ok {
		for range 2 {
			if err := i.Init(ctx, made.ID); err != nil {
				t.Fatal(err)
			}
		}
		b.state(t, made.ID, engine.Created)
	}
	for range 2 {
		for range 2 { // it runs already
			if err := e.Start(ctx, made.ID); err != nil {
				t.Fatal(err)
			}
		}
		b.said(t, made.ID, "up")
		b.state(t, made.ID, engine.Running)
		for range 2 {
			if err := e.Stop(ctx, made.ID, time.Minute); err != nil {
				t.Fatal(err)
			}
			b.state(t, made.ID, engine.Exited)
		}
		if x, err := e.Exit(ctx, made.ID); err != nil || x.Code != 5 || x.At.IsZero() {
			t.Errorf("Exit = %+v, %v; want 5", x, err)
		}
	}
	for name, err := range map[string]error{
		"Start": e.Start(ctx, "none"), "Stop": e.Stop(ctx, "none", 0), "Kill": e.Kill(ctx, "none", 9), "Rename": e.Rename(ctx, "none", "x"), "Start a path": e.Start(ctx, "a/../b"),
	} {
		if !errors.Is(err, engine.ErrUnknownContainer) {
			t.Errorf("%s = %v, want ErrUnknownContainer", name, err)
		}
	}
}

func stubborn(t *testing.T, b MakerBench) {
	first := b.run(t, "--network", "none", b.Image, "/bin/sh", "-c", "trap '' TERM; echo up; "+forever)
	b.said(t, first.ID, "up")
	if err := b.Engine.Stop(t.Context(), first.ID, time.Second); err != nil {
		t.Fatal(err)
	}
	b.state(t, first.ID, engine.Exited)
	if x, err := b.Engine.Exit(t.Context(), first.ID); err != nil || x.Code != 128+9 {
		t.Errorf("Exit = %+v, %v; want 137", x, err)
	}
	gone := b.run(t, "--rm", "--network", "none", b.Image, "/bin/sh", "-c", forever)
	if err := b.Engine.Stop(t.Context(), gone.ID, time.Second); err != nil {
		t.Errorf("Stop of one that is removed with it: %v", err)
	}
	if _, err := b.Engine.Inspect(t.Context(), gone.ID); !errors.Is(err, engine.ErrUnknownContainer) {
		t.Errorf("after it was stopped: %v", err)
	}
}

func kills(t *testing.T, b MakerBench) {
	first := b.run(t, "--network", "none", b.Image, "/bin/sh", "-c", "trap 'echo hup' HUP; trap 'exit 3' USR1; echo up; while :; do sleep 1 & wait; done")
	b.said(t, first.ID, "up")
	if err := b.Engine.Kill(t.Context(), first.ID, 1); err != nil {
		t.Fatal(err)
	}
	b.said(t, first.ID, "hup")
	if _, err := b.Engine.Exit(t.Context(), first.ID); !errors.Is(err, engine.ErrRunning) {
		t.Errorf("Exit of one that runs = %v", err)
	}
	if err := b.Engine.Kill(t.Context(), first.ID, 10); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Run(t.Context(), "wait", first.ID); err != nil {
		t.Fatal(err)
	}
	if x, err := b.Engine.Exit(t.Context(), first.ID); err != nil || x.Code != 3 {
		t.Errorf("Exit = %+v, %v; want 3", x, err)
	}
	if err := b.Engine.Kill(t.Context(), first.ID, 9); err == nil {
		t.Error("one that has ended was sent a signal")
	}
}

func renames(t *testing.T, b MakerBench) {
	first := b.run(t, "--name", "first", "--network", "none", b.Image, "/bin/sh", "-c", forever)
	second := b.like(t, first.ID, engine.Changes{Name: "second"})
	for _, step := range []struct{ id, name string }{{first.ID, "old"}, {second.ID, "first"}} {
		if err := b.Engine.Rename(t.Context(), step.id, step.name); err != nil {
			t.Fatal(err)
		}
		if c, err := b.Engine.Inspect(t.Context(), step.name); err != nil || c.ID != step.id {
			t.Errorf("%s is %s (%v), want %s", step.name, c.ID, err, step.id)
		}
	}
	if err := b.Engine.Rename(t.Context(), second.ID, "a/b"); err == nil {
		t.Error("renamed to a/b")
	}
}

func removes(t *testing.T, b MakerBench) {
	first := b.run(t, "--network", "none", b.Image, "/bin/sh", "-c", forever)
	if err := b.Engine.Remove(t.Context(), first.ID); !errors.Is(err, engine.ErrRunning) {
		t.Errorf("Remove of one that runs = %v, want ErrRunning", err)
	}
	b.state(t, first.ID, engine.Running)
	made := b.like(t, first.ID, engine.Changes{Name: "second"})
	if i, ok := b.Engine.(engine.Initializer); ok {
		if err := i.Init(t.Context(), made.ID); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := b.Engine.Remove(t.Context(), made.ID); err != nil {
			t.Errorf("Remove: %v", err)
		}
	}
	if _, err := b.Engine.Inspect(t.Context(), made.ID); !errors.Is(err, engine.ErrUnknownContainer) {
		t.Errorf("after it was removed: %v", err)
	}
}

func exits(t *testing.T, b MakerBench) {
	for script, want := range map[string]int{"exit 0": 0, "exit 7": 7, "kill -9 $$": 137, "/no/such/program": 127} {
		first := b.run(t, "--network", "none", b.Image, "/bin/sh", "-c", "sleep 0.2; "+script)
		if _, err := b.Run(t.Context(), "wait", first.ID); err != nil {
			t.Fatal(err)
		}
		x, err := b.Engine.Exit(t.Context(), first.ID)
		// The first process of a pid namespace does not die by its own signals.
		if want == 137 {
			want = x.Code
		}
		if err != nil || x.Code != want || x.OOM || x.At.IsZero() {
			t.Errorf("%s: Exit = %+v, %v; want %d", script, x, err, want)
		}
	}
	// What the runtime cannot start says why.
	first := b.run(t, "--network", "none", b.Image, "/bin/sh", "-c", forever)
	bad := b.like(t, first.ID, engine.Changes{Name: "second", Command: []string{"/no/such/program"}})
	if err := b.Engine.Start(t.Context(), bad.ID); err == nil || !strings.Contains(strings.ToLower(err.Error()), "no such file") {
		t.Errorf("Start = %v", err)
	}
}

func logs(t *testing.T, b MakerBench) {
	first := b.run(t, "--network", "none", b.Image, "/bin/sh", "-c",
		`exec 2>&1; for i in 1 2 3 4 5; do echo "line $i"; done; printf 'esc\033[31m\n' >&2; head -c 5000 /dev/zero | tr '\0' x; echo; echo end; `+forever)
	b.said(t, first.ID, "end")
	text, err := b.Engine.Logs(t.Context(), first.ID, 3)
	lines := strings.Split(text, "\n")
	if err != nil || len(lines) > 3 || lines[len(lines)-1] != "end" || strings.Contains(text, "\x1b") || len(text) > 2000 {
		t.Errorf("Logs = %d lines, %d bytes, %v: %.300q", len(lines), len(text), err, text)
	}
	text, err = b.Engine.Logs(t.Context(), first.ID, 100)
	if err != nil || !strings.Contains(text, "line 1\nline 2\n") || !strings.Contains(text, "esc?[31m") {
		t.Errorf("Logs = %v: %.300q", err, text)
	}
	if _, err := b.Engine.Logs(t.Context(), "none", 3); !errors.Is(err, engine.ErrUnknownContainer) {
		t.Errorf("Logs of none = %v", err)
	}
}

func health(t *testing.T, b MakerBench) {
	checker, ok := b.Engine.(engine.HealthChecker)
	if !ok {
		return // an optional ability
	}
	none := b.run(t, "--network", "none", b.Image, "/bin/sh", "-c", forever)
	if has, healthy, err := checker.Health(t.Context(), none.ID); has || healthy || err != nil {
		t.Errorf("Health of one without a check = %v, %v, %v", has, healthy, err)
	}
	first := b.run(t, "--network", "none", "--health-cmd", "test -e /tmp/ok", "--health-interval=1s", b.Image, "/bin/sh", "-c", forever)
	if has, healthy, err := checker.Health(t.Context(), first.ID); !has || healthy || err != nil {
		t.Errorf("Health of one that is not = %v, %v, %v", has, healthy, err)
	}
	if _, err := b.Run(t.Context(), "exec", first.ID, "/bin/sh", "-c", "echo >/tmp/ok"); err != nil {
		t.Fatal(err)
	}
	for {
		has, healthy, err := checker.Health(t.Context(), first.ID)
		if err != nil || !has {
			t.Fatalf("Health = %v, %v, %v", has, healthy, err)
		}
		if healthy {
			return
		}
		select {
		case <-t.Context().Done():
			t.Fatal("it does not get healthy")
		case <-time.After(100 * time.Millisecond):
		}
	}
}
