// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/whittle-sec/whittle/internal/hint"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// supervisor is a Backend that supervises.
type supervisor struct {
	fake
	attach func(context.Context) error
	mode   ModeChange
	grant  GrantRequest
}

func (s *supervisor) Modes(_ context.Context, ref string) ([]ModeState, error) {
	return []ModeState{{Workload: "w", Name: ref, Mode: ModeAuto, Now: ModeLearn}}, nil
}

func (s *supervisor) SetMode(_ context.Context, _ Peer, c ModeChange) (ModeState, error) {
	s.mode = c
	return ModeState{Mode: c.Mode, Now: c.Mode}, nil
}

func (s *supervisor) Attach(ctx context.Context, _ Peer, r AttachRequest) (AttachResult, error) {
	return AttachResult{Container: r.Container, Paused: time.Millisecond}, s.attach(ctx)
}

func (s *supervisor) Seal(_ context.Context, by Peer, r SealRequest) (AttachResult, error) {
	return AttachResult{Container: r.Container, DryRun: r.DryRun}, nil
}

func (s *supervisor) Grant(_ context.Context, _ Peer, g GrantRequest) (GrantResult, error) {
	s.grant = g
	return GrantResult{Version: 3, Changes: []policy.Change{{Added: true, ABI: syscalls.X86_64, Call: "getrusage", Scope: "phase", Phase: "run"}}}, nil
}

// serveAs runs a server until stop is called, which returns when it has ended.
func serveAs(t *testing.T, s *Server) (c *Client, stop func()) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	s.Log = slog.New(slog.DiscardHandler)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l); close(done) }()
	c = NewClient(socket)
	stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve = %v, want nil after its context ended", err)
		}
		c.Close()
	}
	t.Cleanup(stop)
	return c, stop
}

func TestSupervise(t *testing.T) {
	b := &supervisor{attach: func(context.Context) error { return nil }}
	c, _ := serveAs(t, &Server{Backend: b})
	ctx := t.Context()
	if m, err := c.Modes(ctx, "redis/7 &x"); err != nil || len(m) != 1 || m[0].Name != "redis/7 &x" {
		t.Errorf("Modes = %+v, %v", m, err)
	}
	if m, err := c.SetMode(ctx, ModeChange{Workload: "w", Mode: ModeShadow}); err != nil || m.Now != ModeShadow || b.mode.By == "" {
		t.Errorf("SetMode = %+v, %v; the backend got %+v, want who asked", m, err, b.mode)
	}
	if r, err := c.Attach(ctx, AttachRequest{Container: "web"}); err != nil || r.Container != "web" || r.Paused != time.Millisecond {
		t.Errorf("Attach = %+v, %v", r, err)
	}
	if r, err := c.Seal(ctx, SealRequest{Container: "web", DryRun: true}); err != nil || !r.DryRun {
		t.Errorf("Seal = %+v, %v", r, err)
	}
	want := GrantRequest{Workload: "w", Call: "i386:write", Allow: true, Phases: []policy.Phase{policy.Run}, By: "alice", Why: "because"}
	if g, err := c.Grant(ctx, want); err != nil || g.Version != 3 || len(g.Changes) != 1 {
		t.Errorf("Grant = %+v, %v", g, err)
	}
	if diff := cmp.Diff(want, b.grant); diff != "" {
		t.Errorf("the backend got (-want +got):\n%s", diff)
	}
}

func TestSuperviseRefuses(t *testing.T) {
	c, _ := serveAs(t, &Server{Backend: &supervisor{attach: func(context.Context) error { return errors.New("asked") }}})
	ctx := t.Context()
	for _, tt := range []struct {
		name string
		ask  func() error
		want string
	}{
		{"attach to nothing", func() error { _, err := c.Attach(ctx, AttachRequest{}); return err }, "name a container or a process"},
		{"attach to both", func() error { _, err := c.Attach(ctx, AttachRequest{Container: "a", PID: 1}); return err }, "name a container or a process"},
		{"attach to a negative pid", func() error { _, err := c.Attach(ctx, AttachRequest{PID: -1}); return err }, "name a container or a process"},
		{"attach to learn", func() error { _, err := c.Attach(ctx, AttachRequest{PID: 1, Mode: ModeLearn}); return err }, "shadow or enforce"},
		{"seal nothing", func() error { _, err := c.Seal(ctx, SealRequest{}); return err }, "no container"},
		{"no such mode", func() error { _, err := c.SetMode(ctx, ModeChange{Workload: "w", Mode: "on"}); return err }, "unknown mode"},
		{"no mode", func() error { _, err := c.SetMode(ctx, ModeChange{Workload: "w"}); return err }, "unknown mode"},
		{"mode of nothing", func() error { _, err := c.SetMode(ctx, ModeChange{Mode: ModeOff}); return err }, "no workload"},
		{"grant of nothing", func() error { _, err := c.Grant(ctx, GrantRequest{Workload: "w"}); return err }, "a workload and a call"},
		{"deny in a phase", func() error {
			_, err := c.Grant(ctx, GrantRequest{Workload: "w", Call: "c", Phases: []policy.Phase{policy.Run}})
			return err
		}, "every phase"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := tt.ask(); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want an error with %q", err, tt.want)
			}
		})
	}
}

// An agent that cannot supervise says so, and never looks like success.
func TestSuperviseUnable(t *testing.T) {
	c, _ := serveAs(t, &Server{Backend: &fake{}})
	for name, ask := range map[string]func() error{
		"modes":  func() error { _, err := c.Modes(t.Context(), ""); return err },
		"mode":   func() error { _, err := c.SetMode(t.Context(), ModeChange{Workload: "w", Mode: ModeOff}); return err },
		"attach": func() error { _, err := c.Attach(t.Context(), AttachRequest{PID: 1}); return err },
		"seal":   func() error { _, err := c.Seal(t.Context(), SealRequest{Container: "c"}); return err },
		"grant":  func() error { _, err := c.Grant(t.Context(), GrantRequest{Workload: "w", Call: "c"}); return err },
	} {
		if err := ask(); !errors.Is(err, ErrNotFound) || hint.Of(err) == "" {
			t.Errorf("%s: %v (hint %q), want ErrNotFound with a hint", name, err, hint.Of(err))
		}
	}
}

// Members of the group see modes, and change nothing.
func TestSuperviseByRootOnly(t *testing.T) {
	mux := http.NewServeMux()
	s := &Server{Backend: &supervisor{attach: func(context.Context) error { t.Error("attached"); return nil }}, Log: slog.New(slog.DiscardHandler)}
	s.superviseRoutes(mux)
	member := Peer{PID: 1, UID: uint32(os.Geteuid()) + 1000}
	for _, tt := range []struct {
		method, path, body string
		ctx                context.Context
		want               int
	}{
		{"GET", "/v1/modes", "", context.WithValue(t.Context(), peerKey{}, member), 200},
		{"POST", "/v1/modes", `{"workload":"w","mode":"off"}`, context.WithValue(t.Context(), peerKey{}, member), 403},
		{"POST", "/v1/attach", `{"container":"c"}`, context.WithValue(t.Context(), peerKey{}, member), 403},
		{"POST", "/v1/attach", `{"container":"c"}`, t.Context(), 403}, // nobody knows who
		{"POST", "/v1/seal", `{"container":"c"}`, context.WithValue(t.Context(), peerKey{}, member), 403},
		{"POST", "/v1/grants", `{"workload":"w","call":"c"}`, context.WithValue(t.Context(), peerKey{}, member), 403},
	} {
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, httptest.NewRequest(tt.method, tt.path, strings.NewReader(tt.body)).WithContext(tt.ctx))
		if w.Code != tt.want {
			t.Errorf("%s %s: %d, want %d: %s", tt.method, tt.path, w.Code, tt.want, w.Body)
		}
	}
}

// What takes longer than a request may take to be read is not cut off by that.
func TestAttachTakesItsTime(t *testing.T) {
	const patience = 500 * time.Millisecond // more than a busy machine takes to read the request
	b := &supervisor{attach: func(ctx context.Context) error {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(3 * patience):
			return nil
		}
	}}
	c, _ := serveAs(t, &Server{Backend: b, patience: patience})
	if _, err := c.Attach(t.Context(), AttachRequest{Container: "web"}); err != nil {
		t.Errorf("Attach = %v, want success after three times the patience with a slow client", err)
	}
}

// An attach ends with the client that asked for it: nobody else waits for its result.
func TestAttachEndsWithItsClient(t *testing.T) {
	begun, ended := make(chan struct{}), make(chan error, 1)
	b := &supervisor{attach: func(ctx context.Context) error {
		close(begun)
		<-ctx.Done()
		ended <- ctx.Err()
		return ctx.Err()
	}}
	c, _ := serveAs(t, &Server{Backend: b})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-begun; cancel() }()
	if _, err := c.Attach(ctx, AttachRequest{Container: "web"}); !errors.Is(err, context.Canceled) {
		t.Errorf("Attach = %v, want %v", err, context.Canceled)
	}
	<-ended
}

// follower sends what comes from the channel, and ends with err when it is closed.
type follower struct {
	fake
	events chan Event
	err    error
}

func (f *follower) Follow(ctx context.Context, _ int64, send func(Event) error) error {
	for e := range f.events {
		if err := send(e); err != nil {
			return err
		}
	}
	return f.err
}

func TestFollowToTheEnd(t *testing.T) {
	for _, tt := range []struct {
		name string
		err  error
		want string // of the client's error
	}{
		{"the agent's last words", nil, ""},
		{"the journal cannot be read", errors.New("disk"), "died, or stopped without its last events"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := &follower{events: make(chan Event, 1), err: tt.err}
			c, stop := serveAs(t, &Server{Backend: f, Drain: time.Minute})
			f.events <- Event{Text: "first"}
			var stopped chan struct{}
			var got []string
			err := c.Follow(t.Context(), 0, func(e Event) error {
				if got = append(got, e.Text); len(got) == 1 {
					stopped = make(chan struct{})
					go func() { stop(); close(stopped) }()
					go func() {
						waitRefused(c.socket)
						f.events <- Event{Text: "last"}
						close(f.events)
					}()
				}
				return nil
			})
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("Follow = %v, want %q", err, tt.want)
			}
			if diff := cmp.Diff([]string{"first", "last"}, got); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
			<-stopped
		})
	}
}

// waitRefused returns when the server takes no new connection: its end has begun.
func waitRefused(socket string) {
	for {
		conn, err := net.Dial("unix", socket)
		if err != nil {
			return
		}
		conn.Close()
		time.Sleep(time.Millisecond)
	}
}

// A backend that never ends its stream does not keep the agent from stopping.
func TestFollowIsCutOffAtLast(t *testing.T) {
	f := &fake{events: []Event{{ID: 1, Text: "one"}}} // its Follow waits for its context
	c, stop := serveAs(t, &Server{Backend: f, Drain: 10 * time.Millisecond})
	stopped := make(chan struct{})
	err := c.Follow(t.Context(), 0, func(Event) error {
		go func() { stop(); close(stopped) }()
		return nil
	})
	<-stopped
	if err == nil {
		t.Error("Follow = nil, want an error: these were not the agent's last words")
	}
}

func TestHostileSupervision(t *testing.T) {
	mux := http.NewServeMux()
	s := &Server{Backend: &supervisor{attach: func(context.Context) error { t.Error("attached"); return nil }}, Log: slog.New(slog.DiscardHandler)}
	s.superviseRoutes(mux)
	root := context.WithValue(t.Context(), peerKey{}, Peer{PID: 1})
	for _, tt := range []struct{ name, path, body string }{
		{"unknown key", "/v1/attach", `{"container":"c","force":true}`},
		{"not JSON", "/v1/attach", `container=c`},
		{"empty", "/v1/seal", ``},
		{"a pid that is no number", "/v1/attach", `{"pid":"1"}`},
		{"a huge pid", "/v1/attach", `{"pid":1e30}`},
		{"no such phase", "/v1/grants", `{"workload":"w","call":"c","allow":true,"phases":["sleep"]}`},
		{"a list", "/v1/modes", `[]`},
	} {
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, httptest.NewRequest("POST", tt.path, strings.NewReader(tt.body)).WithContext(root))
		if w.Code != http.StatusBadRequest {
			t.Errorf("%s: %d, want 400: %s", tt.name, w.Code, w.Body)
		}
	}
}
