// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/whittle-sec/whittle/internal/hint"
	"github.com/whittle-sec/whittle/internal/loop"
	"github.com/whittle-sec/whittle/internal/oracle"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// twins is a Backend that keeps oracles.
type twins struct {
	supervisor
	oracles []OracleState
	loops   []LoopState
	records []LoopRecord
	asked   OracleRequest
	ref     string
	limit   int
}

func (b *twins) SetOracle(_ context.Context, _ Peer, r OracleRequest) (OracleState, error) {
	b.asked = r
	return OracleState{Workload: "2b3c", Name: r.Workload, Spec: r.Spec, Strength: "strong"}, nil
}

func (b *twins) Oracles(_ context.Context, ref string) ([]OracleState, error) {
	b.ref = ref
	return b.oracles, nil
}

func (b *twins) RemoveOracle(_ context.Context, _ Peer, ref string) error {
	b.ref = ref
	return nil
}

func (b *twins) Loops(_ context.Context, ref string) ([]LoopState, error) {
	b.ref = ref
	return b.loops, nil
}

func (b *twins) LoopHistory(_ context.Context, ref string, limit int) ([]LoopRecord, error) {
	b.ref, b.limit = ref, limit
	return b.records, nil
}

func asan() oracle.Spec {
	return oracle.Spec{
		Kind: oracle.Sanitizer, Image: "localhost/web:asan", Command: []string{"web", "-x"}, Env: map[string]string{"A": "B"},
		Quiet: 15 * time.Second, Drain: time.Second, By: "alice", Since: time.Unix(1700000000, 0).UTC(),
	}
}

// What is known of oracles and loops comes over whole.
func TestOracles(t *testing.T) {
	b := &twins{}
	c, _ := serveAs(t, &Server{Backend: b})
	if all, err := c.Oracles(t.Context(), ""); err != nil || all == nil || len(all) != 0 {
		t.Errorf("Oracles = %#v, %v, want an empty list", all, err)
	}
	if all, err := c.Loops(t.Context(), ""); err != nil || all == nil || len(all) != 0 {
		t.Errorf("Loops = %#v, %v, want an empty list", all, err)
	}
	if all, err := c.LoopHistory(t.Context(), "", 0); err != nil || all == nil || len(all) != 0 || b.limit != defaultLoops {
		t.Errorf("LoopHistory = %#v, %v with limit %d, want an empty list", all, err, b.limit)
	}
	b.oracles = []OracleState{{Workload: "2b3c", Name: "web-2b3c", Spec: asan(), Strength: "strong", Mode: ModeEnforce, Problems: []string{"p"}, Notes: []string{"n"}}}
	b.loops = []LoopState{{
		Workload: "2b3c", Name: "web-2b3c", Since: time.Unix(1700000001, 0).UTC(), Cause: "execve", Container: "web", Oracle: "web-oracle",
		Calls: []string{"statx"}, Next: "goes back in 9 s", Limits: loop.Defaults(), Problems: []string{"p"},
		Status: loop.Status{
			State: loop.InOracle, Converged: true, Loops: 3, HourLoops: 2, HourTime: time.Minute, Learned: 7, Waiting: []string{"read"},
			Tried: []loop.Tried{{Call: "execve", Times: 2, Until: time.Unix(1700000100, 0).UTC(), Why: "w"}}, NotBefore: time.Unix(1700000200, 0).UTC(), Why: "w",
		},
	}}
	b.records = []LoopRecord{{
		ID: 1, Workload: "2b3c", Cause: "execve by /bin/web:0, run", Started: time.Unix(1700000000, 0).UTC(), Ended: time.Unix(1700000030, 0).UTC(),
		CauseKey: loop.Key{Call: syscalls.Call{ABI: syscalls.X86_64, Nr: 59}, Role: "/bin/web:0", Phase: policy.Run},
		State:    loop.Production, Calls: []string{"execve"}, Verdict: loop.VerdictAttack, Report: &oracle.Report{Kind: "asan", Summary: "s", Text: "t"},
	}}
	oracles, err1 := c.Oracles(t.Context(), "web")
	loops, err2 := c.Loops(t.Context(), "web")
	records, err3 := c.LoopHistory(t.Context(), "web & co", 7)
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	if b.ref != "web & co" || b.limit != 7 {
		t.Errorf("the backend was asked for %q, %d", b.ref, b.limit)
	}
	if diff := cmp.Diff(b.oracles, oracles); diff != "" {
		t.Errorf("Oracles (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(b.loops, loops); diff != "" {
		t.Errorf("Loops (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(b.records, records); diff != "" {
		t.Errorf("LoopHistory (-want +got):\n%s", diff)
	}
}

func TestSetOracle(t *testing.T) {
	b := &twins{}
	c, _ := serveAs(t, &Server{Backend: b})
	want := OracleRequest{Workload: "web", Spec: asan(), Start: true, By: "alice", Why: "because"}
	o, err := c.SetOracle(t.Context(), want)
	if err != nil || o.Name != "web" || o.Spec.Image != want.Spec.Image {
		t.Errorf("SetOracle = %+v, %v", o, err)
	}
	if diff := cmp.Diff(want, b.asked); diff != "" {
		t.Errorf("the backend got (-want +got):\n%s", diff)
	}
	want.By = ""
	if _, err := c.SetOracle(t.Context(), want); err != nil || b.asked.By == "" {
		t.Errorf("the backend got %+v, %v, want who asked", b.asked, err)
	}
	if err := c.RemoveOracle(t.Context(), "web-2b3c"); err != nil || b.ref != "web-2b3c" {
		t.Errorf("RemoveOracle of %q: %v", b.ref, err)
	}
}

// Members of the group look; what is wrong, huge or not theirs to say does not reach the backend.
func TestOraclesByRootOnly(t *testing.T) {
	member := context.WithValue(t.Context(), peerKey{}, Peer{PID: 1, UID: uint32(os.Geteuid()) + 1000})
	root := context.WithValue(t.Context(), peerKey{}, Peer{PID: 1})
	set, remove := "/v1/oracles", "/v1/oracles/remove"
	good := `{"workload":"web","spec":{"kind":"sanitizer","image":"i","since":"0001-01-01T00:00:00Z"}}`
	for _, tt := range []struct {
		name, method, path, body string
		ctx                      context.Context
		want                     int
	}{
		{"a member lists", "GET", set, "", member, 200},
		{"a member looks at loops", "GET", "/v1/loops?workload=web", "", member, 200},
		{"a member looks at history", "GET", "/v1/loops/history", "", member, 200},
		{"a member sets", "POST", set, good, member, 403},
		{"a member removes", "POST", remove, `{"workload":"web"}`, member, 403},
		{"nobody knows who", "POST", set, good, t.Context(), 403},
		{"no workload", "POST", set, strings.Replace(good, "web", "", 1), root, 400},
		{"a huge name", "POST", set, strings.Replace(good, "web", strings.Repeat("w", maxRef+1), 1), root, 400},
		{"a huge reason", "POST", set, strings.Replace(good, "{", `{"why":"`+strings.Repeat("w", maxWhy+1)+`",`, 1), root, 400},
		{"no kind", "POST", set, strings.Replace(good, "sanitizer", "", 1), root, 400},
		{"an unknown kind", "POST", set, strings.Replace(good, "sanitizer", "magic", 1), root, 400},
		{"an unknown key", "POST", set, strings.Replace(good, "image", "imgae", 1), root, 400},
		{"removes nothing", "POST", remove, `{}`, root, 400},
		{"removes a huge name", "POST", remove, `{"workload":"` + strings.Repeat("w", maxRef+1) + `"}`, root, 400},
		{"looks for a huge name", "GET", set + "?workload=" + strings.Repeat("w", maxRef+1), "", root, 400},
		{"wants everything", "GET", "/v1/loops/history?limit=1001", "", root, 400},
		{"wants less than nothing", "GET", "/v1/loops/history?limit=-1", "", root, 400},
		{"empty", "POST", set, "", root, 400},
	} {
		mux := http.NewServeMux()
		b := &twins{ref: "unasked"}
		s := &Server{Backend: b, Log: slog.New(slog.DiscardHandler)}
		s.superviseRoutes(mux)
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, httptest.NewRequest(tt.method, tt.path, strings.NewReader(tt.body)).WithContext(tt.ctx))
		if w.Code != tt.want {
			t.Errorf("%s: %d, want %d: %s", tt.name, w.Code, tt.want, w.Body)
		}
		if asked := b.asked.Workload != "" || b.ref != "unasked"; asked != (tt.want == 200) {
			t.Errorf("%s: the backend was asked: %v", tt.name, asked)
		}
	}
}

func TestNoOracles(t *testing.T) {
	c, _ := serveAs(t, &Server{Backend: &fake{}})
	_, err1 := c.Oracles(t.Context(), "")
	_, err2 := c.Loops(t.Context(), "")
	_, err3 := c.LoopHistory(t.Context(), "", 1)
	_, err4 := c.SetOracle(t.Context(), OracleRequest{Workload: "web", Spec: asan()})
	for i, err := range []error{err1, err2, err3, err4} {
		if !errors.Is(err, ErrNotFound) || hint.Of(err) == "" {
			t.Errorf("%d: %v, want that it is not found, and a hint", i, err)
		}
	}
}
