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
	"github.com/whittle-sec/whittle/internal/judge"
	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// desk is a Backend that asks a person.
type desk struct {
	supervisor
	waits []Waiting
	asked Judgement
}

func (d *desk) Waiting(context.Context) ([]Waiting, error) { return d.waits, nil }

func (d *desk) Settle(_ context.Context, _ Peer, j Judgement) (Judged, error) {
	d.asked = j
	for _, w := range d.waits {
		if w.ID == j.ID {
			return Judged{Waiting: w, Answered: w.Count, Notes: []string{"a note"}}, nil
		}
	}
	return Judged{}, NotWaiting(j.ID)
}

func connectWaits() Waiting {
	return Waiting{
		ID: 7, Container: "0123", Name: "web", Engine: "podman", Workload: "2b3c", WorkloadName: "web-2b3c",
		Case: judge.Case{
			Workload: "2b3c",
			Question: judge.Question{
				Call: syscalls.Call{ABI: syscalls.X86_64, Nr: 42}, Args: [6]uint64{3, 1 << 63, ^uint64(0)}, Lane: observe.LaneService,
				Phase: policy.Run, Role: "/bin/web:0", Refusal: "in no phase", Novel: true,
			},
			Evidence: judge.Evidence{Origin: judge.Origin{Class: judge.File, Path: "/lib/libc.so.6", Offset: 0x1000}},
			Decision: judge.Decision{
				Verdict: judge.Ask, Given: 2, Needed: 4, Why: "too little speaks for it",
				Votes: []judge.Vote{
					{Judge: "association", Stance: judge.For, Points: 2, Why: "others do", Rule: &judge.Rule{
						If: []string{"socket"}, Then: "connect", Confidence: 0.9, Lower: 0.8, Of: 1 << 60, Sources: []string{"nginx"},
					}},
				},
				Changed: []string{"a replica that needed it"},
			},
		},
		Since: time.Unix(1700000000, 0).UTC(), Until: time.Unix(1700000030, 0).UTC(), Count: 3, Comm: "web", PID: 77,
	}
}

// A waiting call comes over with everything that was known, and the answer goes back with who gave it.
func TestJudge(t *testing.T) {
	b := &desk{}
	c, _ := serveAs(t, &Server{Backend: b})
	if w, err := c.Waiting(t.Context()); err != nil || len(w) != 0 {
		t.Errorf("Waiting = %+v, %v, want none", w, err)
	}
	b.waits = []Waiting{connectWaits()}
	w, err := c.Waiting(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(b.waits, w); diff != "" {
		t.Errorf("Waiting (-want +got):\n%s", diff)
	}
	want := Judgement{ID: 7, Allow: true, Always: true, By: "alice", Why: "because"}
	j, err := c.Settle(t.Context(), want)
	if err != nil || j.Answered != 3 || j.Waiting.ID != 7 || len(j.Notes) != 1 {
		t.Errorf("Settle = %+v, %v", j, err)
	}
	if diff := cmp.Diff(want, b.asked); diff != "" {
		t.Errorf("the backend got (-want +got):\n%s", diff)
	}
	if _, err := c.Settle(t.Context(), Judgement{ID: 7}); err != nil || b.asked.By == "" || b.asked.Allow {
		t.Errorf("the backend got %+v, %v, want who asked and no more", b.asked, err)
	}
}

func TestJudgeRefuses(t *testing.T) {
	for _, tt := range []struct {
		name    string
		backend Backend
		ask     func(*Client) error
		found   bool
		want    string
	}{
		{"unknown", &desk{}, func(c *Client) error { _, err := c.Settle(t.Context(), Judgement{ID: 8}); return err }, false, "nothing waits under 8"},
		{"no ID", &desk{}, func(c *Client) error { _, err := c.Settle(t.Context(), Judgement{}); return err }, true, "0 is no ID"},
		{"negative", &desk{}, func(c *Client) error { _, err := c.Settle(t.Context(), Judgement{ID: -1}); return err }, true, "-1 is no ID"},
		{"list, unable", &fake{}, func(c *Client) error { _, err := c.Waiting(t.Context()); return err }, false, "does not supervise"},
		{"settle, unable", &fake{}, func(c *Client) error { _, err := c.Settle(t.Context(), Judgement{ID: 1}); return err }, false, "does not supervise"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, _ := serveAs(t, &Server{Backend: tt.backend})
			err := tt.ask(c)
			if err == nil || !strings.Contains(err.Error(), tt.want) || errors.Is(err, ErrNotFound) == tt.found {
				t.Errorf("%v, want an error with %q, not found: %v", err, tt.want, !tt.found)
			}
			if !tt.found && hint.Of(err) == "" {
				t.Errorf("%v has no hint", err)
			}
		})
	}
}

// Members of the group see what waits, and answer nothing.
func TestJudgeByRootOnly(t *testing.T) {
	mux := http.NewServeMux()
	d := &desk{waits: []Waiting{connectWaits()}}
	s := &Server{Backend: d, Log: slog.New(slog.DiscardHandler)}
	s.superviseRoutes(mux)
	member := context.WithValue(t.Context(), peerKey{}, Peer{PID: 1, UID: uint32(os.Geteuid()) + 1000})
	root := context.WithValue(t.Context(), peerKey{}, Peer{PID: 1})
	for _, tt := range []struct {
		name, method, body string
		ctx                context.Context
		want               int
	}{
		{"a member looks", "GET", "", member, 200},
		{"a member allows", "POST", `{"id":7,"allow":true}`, member, 403},
		{"a member denies", "POST", `{"id":7}`, member, 403},
		{"nobody knows who", "POST", `{"id":7}`, t.Context(), 403},
		{"unknown key", "POST", `{"id":7,"alow":true}`, root, 400},
		{"an ID that is text", "POST", `{"id":"7"}`, root, 400},
		{"a huge ID", "POST", `{"id":1e30}`, root, 400},
		{"empty", "POST", ``, root, 400},
	} {
		d.asked = Judgement{}
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, httptest.NewRequest(tt.method, "/v1/judge", strings.NewReader(tt.body)).WithContext(tt.ctx))
		if w.Code != tt.want {
			t.Errorf("%s: %d, want %d: %s", tt.name, w.Code, tt.want, w.Body)
		}
		if asked := d.asked.ID != 0; asked != (tt.want == 200 && tt.method == "POST") {
			t.Errorf("%s: the backend was asked: %v", tt.name, asked)
		}
	}
}

// paged is a journal whose events have gaps: the oldest were deleted, and IDs were skipped.
type paged struct{ ids []int64 }

func (p paged) Events(_ context.Context, q EventQuery) (out []Event, err error) {
	for _, id := range p.ids {
		if id > q.After {
			out = append(out, Event{ID: id})
		}
	}
	if len(out) > q.Limit {
		if q.Oldest {
			return out[:q.Limit], nil
		}
		return out[len(out)-q.Limit:], nil
	}
	return out, nil
}

func TestFindEvent(t *testing.T) {
	for _, tt := range []struct {
		id   int64
		want bool
	}{{5, true}, {9, true}, {12, true}, {4, false}, {6, false}, {13, false}, {0, false}, {-5, false}} {
		e, err := FindEvent(t.Context(), paged{[]int64{5, 9, 12}}, tt.id)
		if tt.want && (err != nil || e.ID != tt.id) || !tt.want && (!errors.Is(err, ErrNotFound) || hint.Of(err) == "") {
			t.Errorf("event %d: %+v, %v, want it found: %v", tt.id, e, err, tt.want)
		}
	}
}

// The oldest events are asked for over the socket, too.
func TestEventsOldest(t *testing.T) {
	b := &asksOldest{}
	c, _ := serveAs(t, &Server{Backend: b})
	want := EventQuery{After: 3, Limit: 2, Kind: "judged", Workload: "w", Oldest: true}
	if _, err := c.Events(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, b.asked); diff != "" {
		t.Errorf("the backend got (-want +got):\n%s", diff)
	}
}

type asksOldest struct {
	fake
	asked EventQuery
}

func (a *asksOldest) Events(_ context.Context, q EventQuery) ([]Event, error) {
	a.asked = q
	return nil, nil
}
