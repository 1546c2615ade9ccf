// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/loop"
	"github.com/whittle-sec/whittle/internal/oracle"
	"github.com/whittle-sec/whittle/internal/units"
)

// host is a systemd with a pair of units, whose containers are an engine's. The end-to-end tests have a real one.
type host struct {
	r *loopRig

	mu       sync.Mutex
	states   map[string]units.Status
	switches []string
	made     string // what the oracle's unit was written for
	pair     error
	within   bool
	fails    string // a unit that does not start
	deaf     bool   // the oracle's container starts without a hook
	killed   bool   // the agent is, in the middle of a switch
}

func newHost(t *testing.T) (*loopRig, *host) {
	t.Helper()
	h := &host{within: true, states: map[string]units.Status{
		"web.service":        {Loaded: true, State: "active"},
		"web-oracle.service": {Loaded: true, State: "inactive"},
	}}
	r := newLoopRig(t)
	h.r = r
	r.e.unit = "web.service"
	h.join()
	start, err := startOfOracle(r.d.spec, engine.Blueprint{}, filepath.Join(r.dir, "units", "web"))
	if err != nil {
		t.Fatal(err)
	}
	if h.made, err = OracleMade(start); err != nil {
		t.Fatal(err)
	}
	return r, h
}

// join the agent that there is now.
func (h *host) join() { h.r.a.Moving.Systemd, h.r.a.Moving.Units = h, filepath.Join(h.r.dir, "units") }

func (h *host) Excludes(context.Context, string, string) error { return h.pair }

func (h *host) Within(context.Context, string, int) (bool, error) { return h.within, nil }

func (h *host) Show(_ context.Context, unit string) (units.Status, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.states[unit]
	s.Command = "podman run --label=" + OracleMadeLabel + "=" + h.made + " web-asan"
	return s, nil
}

// set a unit to a state, and the containers to what follows.
func (h *host) set(unit string, s units.Status) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s.Loaded = true
	h.states[unit] = s
	id := map[string]string{"web.service": production, "web-oracle.service": "bbbb"}[unit]
	h.r.e.mu.Lock()
	defer h.r.e.mu.Unlock()
	delete(h.r.e.containers, id) // podman run --rm
	if s.State == "active" {
		c := *h.r.e.first
		c.ID, c.Name, c.State = id, strings.TrimSuffix(unit, ".service"), engine.Running
		h.r.e.containers[id] = &c
	}
}

func (h *host) Switch(ctx context.Context, from, to string) error {
	h.mu.Lock()
	h.switches = append(h.switches, to)
	h.mu.Unlock()
	h.set(from, units.Status{State: "inactive", Result: "success"})
	if h.fails == to {
		h.set("web.service", units.Status{State: "active"}) // by OnFailure=
		return errors.New("there is no such image")
	}
	if to == "web-oracle.service" && !h.deaf {
		c := engine.Container{}
		c.Engine, c.ID = "fake", "bbbb"
		if h.r.a.startedByUnit(ctx, api.Peer{PID: 7, UID: 1000}, c) != nil {
			h.r.t.Error("a user's container is believed to be the oracle")
		}
		if h.r.a.startedByUnit(ctx, api.Peer{PID: 7}, c) == nil {
			h.r.t.Error("the oracle's container is not known")
		}
	}
	h.set(to, units.Status{State: "active"})
	if h.killed {
		h.r.kill()
		return ctx.Err()
	}
	return nil
}

// serves checks that production is the only one.
func (h *host) serves() {
	h.r.t.Helper()
	if who, n := h.r.e.is(); who != "production" || n != 1 {
		h.r.t.Errorf("%q of %d containers serves: %q", who, n, h.switches)
	}
}

func TestLoopByUnits(t *testing.T) {
	r, h := newHost(t)
	r.asks("sync")
	if !r.turn(loop.InOracle, time.Minute) {
		t.Fatalf("no oracle serves: %q, %+v", h.switches, r.records())
	}
	if r.a.twins.whose("bbbb") != r.d.twin || r.d.where().Oracle != "bbbb" {
		t.Error("the oracle's container is not known as one")
	}
	if len(r.d.waits) != 0 {
		t.Error("a call waits in a container that has ended")
	}
	r.reaches("sync")
	dir := filepath.Join(r.dir, "units", "web")
	if err := os.WriteFile(filepath.Join(dir, "reports", "empty"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if !r.turn(loop.Production, time.Minute) {
		t.Fatalf("production does not come back: %q", h.switches)
	}
	h.serves()
	if got := r.learned(); !slices.Equal(got, []string{"sync"}) {
		t.Errorf("learned %q", got)
	}
	got := r.records()
	if len(got) != 1 || got[0].Verdict != loop.VerdictLearned || !strings.Contains(got[0].Lost, "connections were refused while systemd stopped web.service") {
		t.Errorf("records %+v", got)
	}
	if want := []string{"web-oracle.service", "web.service"}; !slices.Equal(h.switches, want) || len(r.e.verbs) > 0 {
		t.Errorf("switched to %q, and asked the engine for %q", h.switches, r.e.verbs)
	}
	left, err := os.ReadDir(filepath.Join(dir, "reports"))
	if err != nil || len(left) > 0 {
		t.Errorf("for the next one there is %v, %v", left, err)
	}
	if r.a.twins.whose("bbbb") != nil {
		t.Error("a container that is gone is known as an oracle")
	}
}

// Where systemd cannot switch, or to something else than the oracle, no loop takes place.
func TestLoopByUnitsRefused(t *testing.T) {
	for _, tt := range []struct {
		name  string
		spoil func(h *host)
		why   string
		moves int
	}{
		{"no pair", func(h *host) { h.pair = units.ErrNoConflict }, "whittle oracle unit writes units for both", 0},
		{"another's unit", func(h *host) { h.within = false }, "systemd does not know it there", 0},
		{"another oracle", func(h *host) { h.made = "another" }, "was not written for the oracle that is set now", 0},
		{"an oracle that somebody starts", func(h *host) { h.set("web-oracle.service", units.Status{State: "inactive", Pending: true}) }, "is about to start", 0},
		{"no image", func(h *host) { h.fails = "web-oracle.service" }, "no such image", 1},
		{"no hook", func(h *host) { h.deaf = true }, "was not told of its container", 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, h := newHost(t)
			tt.spoil(h)
			r.asks("sync")
			if !r.turn(loop.Production, time.Minute) {
				t.Fatalf("it does not end: %q, %s", h.switches, r.d.problem)
			}
			h.serves()
			if got := r.records(); len(got) != 1 || got[0].Verdict != loop.VerdictFailed || !strings.Contains(got[0].Why, tt.why) {
				t.Errorf("records %+v", got)
			}
			if len(h.switches) != tt.moves || len(r.d.waits) != 0 {
				t.Errorf("switched to %q, and %d calls wait", h.switches, len(r.d.waits))
			}
		})
	}
}

// However the oracle's unit ends, systemd brings production back, and the loop is over. What somebody has stopped stays so.
func TestLoopByUnitsEnds(t *testing.T) {
	for _, tt := range []struct {
		name    string
		as      units.Status
		report  string
		then    string // production is
		verdict loop.Verdict
		serve   string
	}{
		{"it aborts", units.Status{State: "failed", Result: "exit-code", Exit: oracle.AbortCode}, "", "active", loop.VerdictAttack, "production"},
		{"it has reported", units.Status{State: "inactive", Result: "success"}, asanReport, "active", loop.VerdictAttack, "production"},
		{"its time is over", units.Status{State: "failed", Result: "timeout", Exit: 143}, "", "active", loop.VerdictFailed, "production"},
		{"somebody has stopped both", units.Status{State: "inactive", Result: "success"}, "", "inactive", loop.VerdictFailed, ""},
		{"production has failed", units.Status{State: "inactive", Result: "success"}, "", "failed", loop.VerdictFailed, "production"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, h := newHost(t)
			r.asks("sync")
			if !r.turn(loop.InOracle, time.Minute) {
				t.Fatalf("no oracle serves: %q", h.switches)
			}
			r.reaches("sync")
			if tt.report != "" {
				if err := os.WriteFile(filepath.Join(r.dir, "units", "web", "reports", "asan.7"), []byte(tt.report), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			h.set("web-oracle.service", tt.as)
			h.set("web.service", units.Status{State: tt.then})
			if !r.turn(loop.Production, time.Minute) {
				t.Fatalf("it does not end: %q", h.switches)
			}
			if who, _ := r.e.is(); who != tt.serve {
				t.Errorf("%q serves: %q", who, h.switches)
			}
			if got := r.records(); len(got) != 1 || got[0].Verdict != tt.verdict {
				t.Errorf("records %+v", got)
			}
			if got := r.learned(); len(got) != 0 {
				t.Errorf("learned %q", got)
			}
		})
	}
}

// An agent that is killed asks systemd who serves.
func TestLoopByUnitsAfterKill(t *testing.T) {
	for _, tt := range []struct {
		name    string
		before  func(r *loopRig, h *host) // the agent is killed
		after   func(h *host)             // meanwhile
		verdict loop.Verdict
	}{
		{"on the way there", func(r *loopRig, h *host) { h.killed = true; r.turn(loop.InOracle, time.Minute) }, func(*host) {}, loop.VerdictQuiet},
		{"on the way there, and the oracle has aborted", func(r *loopRig, h *host) { h.killed = true; r.turn(loop.InOracle, time.Minute) }, func(h *host) {
			h.set("web-oracle.service", units.Status{State: "failed", Result: "exit-code", Exit: oracle.AbortCode})
			h.set("web.service", units.Status{State: "active"})
		}, loop.VerdictAttack},
		{"while it serves", func(r *loopRig, _ *host) { r.turn(loop.InOracle, time.Minute) }, func(*host) {}, loop.VerdictQuiet},
		{"while it serves, and its time is over", func(r *loopRig, _ *host) { r.turn(loop.InOracle, time.Minute) }, func(h *host) {
			h.set("web-oracle.service", units.Status{State: "failed", Result: "timeout", Exit: 143})
			h.set("web.service", units.Status{State: "active"})
		}, loop.VerdictFailed},
		{"on the way back", func(r *loopRig, h *host) {
			r.turn(loop.InOracle, time.Minute)
			h.killed = true
			r.turn(loop.Production, time.Minute)
		}, func(*host) {}, loop.VerdictQuiet},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, h := newHost(t)
			r.asks("sync")
			tt.before(r, h)
			r.end()
			h.killed = false
			tt.after(h)
			h.switches = nil
			r.begin()
			h.join()
			if !r.turn(loop.Production, 10*time.Minute) {
				t.Fatalf("it does not end: %q", h.switches)
			}
			h.serves()
			if got := r.records(); len(got) != 1 || got[0].Verdict != tt.verdict {
				t.Errorf("records %+v", got)
			}
			if slices.Contains(h.switches, "web-oracle.service") && tt.verdict != loop.VerdictQuiet {
				t.Errorf("it begins again: %q", h.switches)
			}
		})
	}
}

// A unit's oracles have the same directory. What was seen of one of them, such as that somebody had filled it, is forgotten.
func TestLoopByUnitsReports(t *testing.T) {
	r, h := newHost(t)
	dir := filepath.Join(r.dir, "units", "web")
	r.d.reports = reports{dir: dir, full: true, seen: map[string]reportFile{}}
	r.asks("sync")
	if !r.turn(loop.InOracle, time.Minute) {
		t.Fatalf("no oracle serves: %q", h.switches)
	}
	for i := range maxReportFiles + 1 {
		if err := os.WriteFile(filepath.Join(dir, "reports", fmt.Sprint(i)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if !r.turn(loop.Production, time.Minute) {
		t.Fatalf("production does not come back: %q", h.switches)
	}
	if got := r.records(); len(got) != 1 || got[0].Verdict != loop.VerdictAttack {
		t.Errorf("records %+v", got)
	}
}
