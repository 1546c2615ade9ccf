// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/hint"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/workload"
)

// fake answers from memory.
type fake struct {
	registered chan Registration
	events     []Event
}

func (f *fake) Workloads(context.Context) ([]Summary, error) {
	return []Summary{{Name: "redis-1234"}}, nil
}
func (f *fake) Policy(ctx context.Context, ref string) (policy.Policy, error) {
	return f.PolicyVersion(ctx, ref, 0)
}

func (f *fake) PolicyVersion(_ context.Context, ref string, _ int) (policy.Policy, error) {
	return policy.Policy{}, hint.Add(fmt.Errorf("workload %q: %w", ref, ErrNotFound), "whittle policy list")
}
func (f *fake) History(context.Context, string) ([]Revision, error) {
	return []Revision{{Version: 1}}, nil
}
func (f *fake) Floor(context.Context, string) (map[string][]string, error) {
	return map[string][]string{"x86_64": {"execve"}}, nil
}
func (f *fake) Events(_ context.Context, q EventQuery) ([]Event, error) {
	return f.events[q.After:], nil
}
func (f *fake) Import(context.Context, policy.Policy, string) error { return nil }
func (f *fake) RecordExport(context.Context, Export) error          { return nil }
func (f *fake) Status(context.Context) (Status, error)              { return Status{PID: 7}, nil }
func (f *fake) Gone(context.Context, Peer, Gone) error              { return errors.New("broken") }
func (f *fake) Register(_ context.Context, by Peer, r Registration) error {
	if by.PID != os.Getpid() || !by.Privileged() {
		return fmt.Errorf("%w: %+v", ErrForbidden, by)
	}
	f.registered <- r
	return nil
}
func (f *fake) Follow(ctx context.Context, after int64, send func(Event) error) error {
	for _, e := range f.events[after:] {
		if err := send(e); err != nil {
			return err
		}
	}
	<-ctx.Done()
	return ctx.Err()
}

// serve a fake until the test ends.
func serve(t *testing.T, f *fake) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "s")
	l, err := Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	s := Server{Backend: f, Version: "v9", Log: slog.New(slog.DiscardHandler)}
	go func() { done <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve = %v, want nil after its context ended", err)
		}
	})
	return socket
}

func TestClientAndServer(t *testing.T) {
	f := &fake{registered: make(chan Registration, 1), events: []Event{{ID: 1, Text: "one"}, {ID: 2, Text: "two"}}}
	c := NewClient(serve(t, f))
	defer c.Close()
	ctx := t.Context()
	if s, err := c.Status(ctx); err != nil || s.PID != 7 {
		t.Errorf("Status = %+v, %v", s, err)
	}
	if s, err := c.Workloads(ctx); err != nil || len(s) != 1 || s[0].Name != "redis-1234" {
		t.Errorf("Workloads = %+v, %v", s, err)
	}
	want := Registration{Container: engine.Container{Container: workload.Container{ID: "c1", PID: 12}, StopSignal: 3}}
	if err := c.Register(ctx, want); err != nil {
		t.Errorf("Register = %v", err)
	}
	if got := <-f.registered; got.Container.ID != "c1" || got.Container.StopSignal != 3 {
		t.Errorf("the backend got %+v, want %+v", got, want)
	}
	_, err := c.Policy(ctx, "no/such")
	if !errors.Is(err, ErrNotFound) || hint.Of(err) != "whittle policy list" || !strings.Contains(err.Error(), `"no/such"`) {
		t.Errorf("Policy of nothing = %v (hint %q)", err, hint.Of(err))
	}
	if err := c.Gone(ctx, Gone{}); err == nil || err.Error() != "broken" {
		t.Errorf("Gone = %v, want the backend's words", err)
	}
	if e, err := c.Events(ctx, EventQuery{After: 1}); err != nil || len(e) != 1 || e[0].Text != "two" {
		t.Errorf("Events after 1 = %+v, %v", e, err)
	}
	var got []string
	enough := errors.New("enough")
	err = c.Follow(ctx, 0, func(e Event) error {
		if got = append(got, e.Text); len(got) == 2 {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) || !slices.Equal(got, []string{"one", "two"}) {
		t.Errorf("Follow = %v after %q", err, got)
	}
}

func TestHostileRequests(t *testing.T) {
	socket := serve(t, &fake{})
	hc := &http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		return net.Dial("unix", socket)
	}}}
	defer hc.CloseIdleConnections()
	for _, tc := range []struct {
		name, method, path, body string
		want                     int
	}{
		{"no such endpoint", "GET", "/v1/nothing", "", 404},
		{"no such version", "GET", "/v2/status", "", 404},
		{"unknown key", "POST", "/v1/containers", `{"surprise":1}`, 400},
		{"not JSON", "POST", "/v1/containers", `hello`, 400},
		{"empty", "POST", "/v1/containers", ``, 400},
		{"endless body", "POST", "/v1/containers", `{"profile":"` + strings.Repeat("a", MaxBody) + `"}`, 413},
		{"negative", "GET", "/v1/events?after=-1", "", 400},
		{"too many", "GET", "/v1/events?limit=99999999", "", 400},
		{"huge", "GET", "/v1/policies/x?version=99999999999999999999", "", 400},
	} {
		t.Run(tc.name, func(t *testing.T) {
			req, err := http.NewRequest(tc.method, "http://x"+tc.path, strings.NewReader(tc.body))
			if err != nil {
				t.Fatal(err)
			}
			resp, err := hc.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if resp.StatusCode != tc.want || !strings.Contains(string(body), `"error"`) {
				t.Errorf("%s %s = %d %s, want %d", tc.method, tc.path, resp.StatusCode, body, tc.want)
			}
			if v := resp.Header.Get(VersionHeader); v != "v9" {
				t.Errorf("%s = %q, want v9", VersionHeader, v)
			}
		})
	}
}

func TestMayTalk(t *testing.T) {
	for _, tc := range []struct {
		name string
		peer Peer
		has  bool
		want bool
	}{
		{"root", Peer{UID: 0}, false, true},
		{"the agent's user", Peer{UID: 500}, false, true},
		{"primary group", Peer{UID: 1000, GID: 77}, true, true},
		{"supplementary group", Peer{UID: 1000, GID: 1000, Groups: []uint32{4, 77}}, true, true},
		{"a stranger", Peer{UID: 1000, GID: 1000, Groups: []uint32{4}}, true, false},
		{"no such group, and gid 0 is not it", Peer{UID: 1000, GID: 0, Groups: []uint32{0}}, false, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := tc.peer.mayTalk(500, 77*b2i(tc.has), tc.has); got != tc.want {
				t.Errorf("%+v may talk = %v, want %v", tc.peer, got, tc.want)
			}
		})
	}
}

func b2i(b bool) uint32 {
	if b {
		return 1
	}
	return 0
}

func TestUnknownPeerIsRefused(t *testing.T) {
	s := Server{Backend: &fake{}, Log: slog.New(slog.DiscardHandler)}
	srv, cli := net.Pipe()
	defer cli.Close()
	defer srv.Close()
	ctx := withPeer(context.Background(), srv)
	req, _ := http.NewRequestWithContext(ctx, "GET", "/v1/status", nil)
	rec := &recorder{}
	s.Handler().ServeHTTP(rec, req)
	if rec.code != http.StatusForbidden || !strings.Contains(rec.body.String(), `"hint"`) {
		t.Errorf("a request without credentials got %d %s, want 403 with a hint", rec.code, rec.body.String())
	}
}

type recorder struct {
	code   int
	header http.Header
	body   strings.Builder
}

func (r *recorder) Header() http.Header {
	if r.header == nil {
		r.header = http.Header{}
	}
	return r.header
}
func (r *recorder) WriteHeader(code int)        { r.code = code }
func (r *recorder) Write(b []byte) (int, error) { return r.body.Write(b) }

func TestListen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run", "s")
	first, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("mode of the socket = %v, %v, want 0660", info.Mode(), err)
	}
	_, err = Listen(path)
	if want := fmt.Sprintf("pid %d", os.Getpid()); !errors.Is(err, ErrRunning) || !strings.Contains(err.Error(), want) {
		t.Errorf("a second Listen = %v, want %v with %s", err, ErrRunning, want)
	}
	if !strings.Contains(hint.Of(err), "--state") {
		t.Errorf("hint = %q, want --state and --socket", hint.Of(err))
	}
	first.SetUnlinkOnClose(false) // as kill -9 leaves it
	first.Close()
	again, err := Listen(path)
	if err != nil {
		t.Fatalf("Listen over a dead agent's socket = %v", err)
	}
	again.Close()
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path); err == nil || errors.Is(err, ErrRunning) {
		t.Errorf("Listen over a file = %v, want an error", err)
	}
	if b, _ := os.ReadFile(path); string(b) != "precious" {
		t.Error("Listen removed a file that is no socket")
	}
}

func TestClientErrors(t *testing.T) {
	dir := t.TempDir()
	_, err := NewClient(filepath.Join(dir, "none")).Status(t.Context())
	if !errors.Is(err, ErrNotRunning) || hint.Of(err) == "" {
		t.Errorf("no socket: %v (hint %q)", err, hint.Of(err))
	}
	// Something else listens there, and does not speak our language.
	path := filepath.Join(dir, "other")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.NotFoundHandler()}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	defer func() { srv.Close(); <-done }()
	c := NewClient(path)
	defer c.Close()
	if _, err = c.Status(t.Context()); err == nil || !strings.Contains(err.Error(), "not a whittle agent") {
		t.Errorf("another server: %v", err)
	}
}
