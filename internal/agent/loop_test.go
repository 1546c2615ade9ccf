// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/judge"
	"github.com/whittle-sec/whittle/internal/loop"
	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/internal/oracle"
	"github.com/whittle-sec/whittle/internal/plan"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/renew"
	"github.com/whittle-sec/whittle/internal/store"
	"github.com/whittle-sec/whittle/internal/supervise"
	"github.com/whittle-sec/whittle/internal/syscalls"
	"github.com/whittle-sec/whittle/internal/ward"
	"github.com/whittle-sec/whittle/internal/workload"
)

// engines is an engine with two containers at most, whose processes are nobody's. After so many verbs it is as if the agent
// had been killed: the one that was asked for is done, or not, and its answer never comes.
type engines struct {
	engine.Maker
	mu         sync.Mutex
	containers map[string]*engine.Container
	verbs      []string
	left       int  // verbs until the agent is killed; 0: it is not
	done       bool // of the verb at which it is
	kill       context.CancelFunc
	refuse     map[string]error // by verb
	exit       engine.Exit
	auto       bool              // production is removed when it stops
	unit       string            // of systemd, that manages production
	first      *engine.Container // production, as it was
	dies       bool              // an oracle does, at once
}

const production = "aaaaaaaaaaaaaaaa"

func newEngines(image string) *engines {
	c := engine.Container{Container: workload.Container{
		Engine: "fake", ID: production, Name: "web", Workload: workload.Workload{Image: image, Command: []string{"/usr/bin/web"}},
	}, State: engine.Running}
	first := c
	return &engines{containers: map[string]*engine.Container{production: &c}, first: &first, refuse: map[string]error{}}
}

func (e *engines) verb(ctx context.Context, name, id string, do func(c *engine.Container) error) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	e.verbs = append(e.verbs, name+" "+id)
	if err := e.refuse[name]; err != nil {
		return err
	}
	var found *engine.Container
	for _, c := range e.containers {
		if c.ID == id || c.Name == id {
			found = c
		}
	}
	if e.left--; e.left == 0 {
		if e.done {
			_ = do(found)
		}
		e.kill()
		return ctx.Err()
	}
	return do(found)
}

func (e *engines) Name() string { return "fake" }

func (e *engines) Inspect(ctx context.Context, id string) (out engine.Container, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, c := range e.containers {
		if c.ID == id || c.Name == id {
			return *c, ctx.Err()
		}
	}
	return out, engine.ErrUnknownContainer
}

func (e *engines) Blueprint(ctx context.Context, id string) (engine.Blueprint, error) {
	c, err := e.Inspect(ctx, id)
	return engine.Blueprint{Container: c, AutoRemove: e.auto || e.unit != "", SystemdUnit: e.unit}, err
}

func (e *engines) Make(ctx context.Context, like string, c engine.Changes) (string, error) {
	id := "bbbb" + strings.TrimPrefix(c.Name, "web-oracle-")
	return id, e.verb(ctx, "make", like, func(old *engine.Container) error {
		fresh := *old
		fresh.ID, fresh.Name, fresh.State, fresh.Workload.Image, fresh.Labels = id, c.Name, engine.Created, cmpOr(c.Image, fresh.Workload.Image), c.Labels
		e.containers[id] = &fresh
		return nil
	})
}

func (e *engines) state(ctx context.Context, verb, id string, s engine.State) error {
	return e.verb(ctx, verb, id, func(c *engine.Container) error {
		if c == nil {
			return engine.ErrUnknownContainer
		}
		for _, other := range e.containers {
			if other != c && s == engine.Running && other.State == engine.Running {
				return errors.New("two of them would run at once")
			}
		}
		c.State = s
		if e.dies && c.ID != production {
			c.State = engine.Exited
		}
		return nil
	})
}

func (e *engines) Start(ctx context.Context, id string) error {
	return e.state(ctx, "start", id, engine.Running)
}

func (e *engines) Stop(ctx context.Context, id string, _ time.Duration) error {
	return e.state(ctx, "stop", id, engine.Exited)
}

func (e *engines) Remove(ctx context.Context, id string) error {
	return e.verb(ctx, "remove", id, func(c *engine.Container) error {
		if c != nil {
			delete(e.containers, c.ID)
		}
		return nil
	})
}

func (e *engines) Exit(context.Context, string) (engine.Exit, error) { return e.exit, nil }
func (e *engines) Logs(context.Context, string, int) (string, error) { return "", nil }

// is who runs: "production", "oracle", "" or both.
func (e *engines) is() (running string, containers int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for id, c := range e.containers {
		if c.State != engine.Running {
			continue
		}
		running += map[bool]string{true: "production", false: "oracle"}[id == production]
	}
	return running, len(e.containers)
}

// looped is an agent with one twin, whose driver the test turns.
type loopRig struct {
	t    *testing.T
	a    *Agent
	d    *driver
	e    *engines
	now  *atomic.Int64
	db   *store.Store
	dir  string
	ctx  context.Context
	kill context.CancelFunc
	sup  *supervise.Supervisor
	ward *ward.Ward
	stop func() error

	unarmed error                                                       // why the oracle has not its hardening
	move    func(renew.Request, func(renew.Done)) (renew.Result, error) // nil: the service cannot be moved
}

func newLoopRig(t *testing.T) *loopRig {
	t.Helper()
	r := &loopRig{t: t, e: newEngines("web"), now: &atomic.Int64{}, dir: t.TempDir()}
	r.now.Store(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).UnixNano())
	r.begin()
	t.Cleanup(func() { r.end() })
	return r
}

func (r *loopRig) clock() time.Time { return time.Unix(0, r.now.Load()) }

// begin an agent, with what an earlier one left in the store.
func (r *loopRig) begin() {
	r.t.Helper()
	var err error
	if r.db, err = store.Open(filepath.Join(r.dir, "state"), r.clock); err != nil {
		r.t.Fatal(err)
	}
	rig := start(r.t, func(c *Config) {
		c.Store, c.Now, c.Log = Stored{r.db}, r.clock, slog.New(slog.DiscardHandler)
		c.Moving = &Moving{
			Makers: map[string]engine.Maker{"fake": r.e}, Oracles: filepath.Join(r.dir, "oracles"), Limits: loop.Defaults(),
			Recover: func(context.Context, string, ...string) ([]renew.Result, bool, error) { return nil, false, nil },
			Move: func(_ context.Context, _ string, q renew.Request, tell func(renew.Done)) (renew.Result, error) {
				if r.move == nil {
					return renew.Result{}, renew.ErrRefused
				}
				return r.move(q, tell)
			},
			Armed: func(engine.Container, oracle.Spec, string) error { return r.unarmed },
		}
	})
	r.a, r.stop = rig.Agent, rig.stop
	r.ctx, r.kill = context.WithCancel(r.t.Context())
	r.e.kill = r.kill
	w := r.e.first.Workload
	oracles, err := r.db.Oracles(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	if len(oracles) == 0 {
		if _, err := r.a.beginEmpty(r.t.Context(), w); err != nil {
			r.t.Fatal(err)
		}
		spec := oracle.Spec{Kind: oracle.Sanitizer, Image: "web-asan"}
		r.a.twins.add(r.a.newTwin(w, spec, loopSaved{}))
		text, err := json.Marshal(storedOracle{spec, w})
		if err != nil {
			r.t.Fatal(err)
		}
		if err := r.db.PutOracle(r.t.Context(), w.ID(), text); err != nil {
			r.t.Fatal(err)
		}
	} else {
		if err := r.a.readTwins(r.t.Context()); err != nil {
			r.t.Fatal(err)
		}
	}
	r.d = &driver{twin: r.a.twins.find(w.ID())}
	if r.sup, err = supervise.New(nil); err != nil {
		r.t.Fatal(err)
	}
	r.ward = ward.New(r.a.Observer, 1, 1, ward.OrdersOf(policy.Policy{Workload: w, Complete: true}, 1, plan.Default(), nil), ward.Enforce, r.clock)
}

func (r *loopRig) end() {
	if r.db == nil {
		return
	}
	r.kill()
	if err := r.stop(); err != nil {
		r.t.Error(err)
	}
	r.sup.Close()
	if err := r.db.Close(); err != nil {
		r.t.Error(err)
	}
	r.db = nil
}

// asks for a call in production.
func (r *loopRig) asks(name string) (parked bool, why string) {
	r.t.Helper()
	call := r.call(name)
	return r.d.refused(looping{
		from: key{"fake", production}, held: supervise.Held{Container: 1, Call: call}, errno: 1, ward: r.ward, supervisor: r.sup,
		asked: judge.Case{Question: judge.Question{Call: call, Phase: policy.Run, Lane: observe.LaneService, Role: "/usr/bin/web:0", Refusal: "not in the policy"}},
	})
}

// reaches a call in the oracle.
func (r *loopRig) reaches(name string) bool {
	r.t.Helper()
	return r.reachesAs(name, "/usr/bin/web:0", policy.Run)
}

func (r *loopRig) reachesAs(name, role string, phase policy.Phase) bool {
	r.t.Helper()
	c := judge.Case{Question: judge.Question{Call: r.call(name), Phase: phase, Role: role}}
	c.Evidence.Origin = judge.Origin{Class: judge.File, Path: "/usr/bin/web"}
	allow, _ := r.d.reached(r.ward, supervise.Held{TID: 1, Call: c.Question.Call}, c)
	return allow
}

func (r *loopRig) call(name string) syscalls.Call {
	r.t.Helper()
	nr, ok := syscalls.Number(native, name)
	if !ok {
		r.t.Fatalf("no call %s", name)
	}
	return syscalls.Call{ABI: native, Nr: nr}
}

// turn the driver until the state is reached, or time is over.
func (r *loopRig) turn(want loop.State, most time.Duration) bool {
	r.t.Helper()
	for end := r.clock().Add(most); r.clock().Before(end) && r.ctx.Err() == nil; r.now.Add(int64(loopTick)) {
		r.d.step(r.ctx)
		if r.d.current() == want && r.ctx.Err() == nil {
			r.d.step(r.ctx)
			return true
		}
	}
	return false
}

// learned calls of the stored policy.
func (r *loopRig) learned() (names []string) {
	r.t.Helper()
	p, _, err := r.db.Policy(r.t.Context(), r.d.id)
	if err != nil {
		r.t.Fatal(err)
	}
	all := p.ABIs[native].All()
	return all.Names(native)
}

// What was learned and is in no policy any more, by a person's hand, is refused and does not wait.
func TestLoopLearnedBefore(t *testing.T) {
	r := newLoopRig(t)
	r.asks("sync")
	if !r.turn(loop.InOracle, time.Minute) || !r.reaches("sync") || !r.turn(loop.Production, time.Minute) {
		t.Fatalf("no loop: %q", r.e.verbs)
	}
	parked, _ := r.asks("sync") // by a ward whose policy does not have it
	r.d.step(r.ctx)
	if !parked || len(r.d.waits) != 0 {
		t.Errorf("parked %v, %d wait", parked, len(r.d.waits))
	}
}

func (r *loopRig) records() []loop.Record {
	r.t.Helper()
	all, err := r.a.LoopHistory(r.t.Context(), "", 10)
	if err != nil {
		r.t.Fatal(err)
	}
	return all
}

func TestLoop(t *testing.T) {
	r := newLoopRig(t)
	if parked, why := r.asks("sync"); !parked {
		t.Fatalf("refused: %s", why)
	}
	if !r.turn(loop.InOracle, time.Minute) {
		t.Fatalf("no oracle serves: %q", r.e.verbs)
	}
	if who, _ := r.e.is(); who != "oracle" {
		t.Fatalf("%q serves: %q", who, r.e.verbs)
	}
	if len(r.d.waits) != 0 {
		t.Error("a call waits in a container that has ended")
	}
	for _, name := range []string{"sync", "personality"} {
		if !r.reaches(name) {
			t.Errorf("%s is refused in the oracle", name)
		}
	}
	if !r.turn(loop.Production, time.Minute) {
		t.Fatalf("production does not come back: %q", r.e.verbs)
	}
	if who, n := r.e.is(); who != "production" || n != 1 {
		t.Errorf("%q of %d containers serves: %q", who, n, r.e.verbs)
	}
	if got := r.learned(); !slices.Equal(got, []string{"personality", "sync"}) {
		t.Errorf("learned %q", got)
	}
	if got := r.records(); len(got) != 1 || got[0].Verdict != loop.VerdictLearned || len(got[0].Calls) != 2 || got[0].Workload != r.d.id {
		t.Errorf("records %+v", got)
	}
	if left, _ := os.ReadDir(filepath.Join(r.dir, "oracles")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestLoopAbort(t *testing.T) {
	const report = asanReport
	for _, tt := range []struct {
		name string
		do   func(r *loopRig, dir string)
	}{
		{"a report", func(r *loopRig, dir string) {
			if err := os.WriteFile(filepath.Join(dir, "reports", "asan.7"), []byte(report), 0o600); err != nil {
				r.t.Fatal(err)
			}
		}},
		{"an end without one", func(r *loopRig, _ string) {
			r.e.exit = engine.Exit{Code: oracle.AbortCode}
			r.e.mu.Lock()
			for id, c := range r.e.containers {
				if id != production {
					c.State = engine.Exited
				}
			}
			r.e.mu.Unlock()
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newLoopRig(t)
			r.asks("sync")
			if !r.turn(loop.InOracle, time.Minute) {
				t.Fatalf("no oracle serves: %q", r.e.verbs)
			}
			r.reaches("sync")
			tt.do(r, r.a.oracleDir(r.d.where()))
			if !r.turn(loop.Production, time.Minute) {
				t.Fatalf("production does not come back: %q", r.e.verbs)
			}
			if who, n := r.e.is(); who != "production" || n != 1 {
				t.Errorf("%q of %d containers serves: %q", who, n, r.e.verbs)
			}
			if got := r.learned(); len(got) != 0 {
				t.Errorf("learned %q", got)
			}
			got := r.records()
			if len(got) != 1 || got[0].Verdict != loop.VerdictAttack || got[0].Report == nil {
				t.Fatalf("records %+v", got)
			}
			if parked, _ := r.asks("sync"); parked {
				t.Error("another loop begins for what an attack asked for")
			}
		})
	}
}

// What does not work ends with production serving, and an honest record.
func TestLoopFails(t *testing.T) {
	for _, tt := range []struct {
		name  string
		spoil func(e *engines)
		why   string
	}{
		{"no image", func(e *engines) { e.refuse["make"] = errors.New("no such image") }, "no such image"},
		{"production that would be gone", func(e *engines) { e.auto = true }, "--rm"},
		{"an oracle that ends at once", func(e *engines) { e.dies, e.exit = true, engine.Exit{Code: 1, Error: "no such file"} }, "ended with 1: no such file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newLoopRig(t)
			tt.spoil(r.e)
			r.asks("sync")
			if !r.turn(loop.Production, time.Minute) {
				t.Fatalf("it does not end: %q", r.e.verbs)
			}
			if who, n := r.e.is(); who != "production" || n != 1 {
				t.Errorf("%q of %d containers serves: %q", who, n, r.e.verbs)
			}
			if got := r.records(); len(got) != 1 || got[0].Verdict != loop.VerdictFailed || !strings.Contains(got[0].Why, tt.why) {
				t.Errorf("records %+v", got)
			}
			if len(r.d.waits) != 0 {
				t.Error("its call waits still")
			}
			if left, _ := os.ReadDir(filepath.Join(r.dir, "oracles")); len(left) != 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// Whatever becomes of the containers while the oracle serves, the loop ends, and nobody serves beside another.
func TestLoopDisturbed(t *testing.T) {
	for _, tt := range []struct {
		name  string
		do    func(e *engines)
		serve string
		count int
	}{
		{"production is removed", func(e *engines) { delete(e.containers, production) }, "", 0},
		{"production is started", func(e *engines) { e.containers[production].State = engine.Running }, "production", 1},
		{"the oracle is removed", func(e *engines) {
			for id := range e.containers {
				if id != production {
					delete(e.containers, id)
				}
			}
		}, "production", 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newLoopRig(t)
			r.asks("sync")
			if !r.turn(loop.InOracle, time.Minute) {
				t.Fatalf("no oracle serves: %q", r.e.verbs)
			}
			r.e.mu.Lock()
			tt.do(r.e)
			r.e.mu.Unlock()
			if !r.turn(loop.Production, 2*time.Minute) {
				t.Fatalf("it does not end: %q", r.e.verbs)
			}
			if who, n := r.e.is(); who != tt.serve || n != tt.count {
				t.Errorf("%q of %d containers serves: %q", who, n, r.e.verbs)
			}
		})
	}
}

// A production that does not get ready leaves the service to the oracle, and is tried again.
func TestLoopComesBackLater(t *testing.T) {
	r := newLoopRig(t)
	r.asks("sync")
	if !r.turn(loop.InOracle, time.Minute) {
		t.Fatalf("no oracle serves: %q", r.e.verbs)
	}
	r.e.refuse["start"] = errors.New("the engine is away")
	if r.turn(loop.Production, time.Minute) {
		t.Fatal("production serves without having been started")
	}
	delete(r.e.refuse, "start")
	if !r.turn(loop.Production, 10*time.Minute) {
		t.Fatalf("it is not tried again: %q", r.e.verbs)
	}
	if who, n := r.e.is(); who != "production" || n != 1 {
		t.Errorf("%q of %d containers serves: %q", who, n, r.e.verbs)
	}
}

// An agent that is killed at any of its dealings with the engine is gone on from by the next one.
func TestLoopAfterKill(t *testing.T) {
	for _, done := range []bool{false, true} {
		for at := 1; ; at++ {
			name := fmt.Sprintf("verb %d, done %v", at, done)
			r := newLoopRig(t)
			r.e.left, r.e.done = at, done
			r.asks("sync")
			if r.turn(loop.InOracle, time.Minute) {
				r.reaches("sync")
				r.turn(loop.Production, time.Minute)
			}
			if r.ctx.Err() == nil {
				r.end()
				if at < 6 {
					t.Errorf("a loop has %d verbs: %q", at-1, r.e.verbs)
				}
				break
			}
			r.end()
			r.begin()
			if r.turn(loop.InOracle, 5*time.Second) {
				r.reaches("sync")
			}
			if !r.turn(loop.Production, 10*time.Minute) {
				t.Fatalf("%s: production does not come back: %q", name, r.e.verbs)
			}
			if who, n := r.e.is(); who != "production" || n != 1 {
				t.Errorf("%s: %q of %d containers serves: %q", name, who, n, r.e.verbs)
			}
			if left, _ := os.ReadDir(filepath.Join(r.dir, "oracles")); len(left) != 0 {
				t.Errorf("%s: left behind: %v", name, left)
			}
			if got := r.records(); len(got) != 1 || got[0].Ended.IsZero() {
				t.Errorf("%s: records %+v", name, got)
			}
		}
	}
}
