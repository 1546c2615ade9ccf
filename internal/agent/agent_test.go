// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/filter"
	"github.com/whittle-sec/whittle/internal/kernel"
	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
	"github.com/whittle-sec/whittle/internal/testenv"
	"github.com/whittle-sec/whittle/internal/workload"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// observer that knows which containers are observed and hands out what the test put into it.
type observer struct {
	mu       sync.Mutex
	last     kernel.ID
	targets  map[kernel.ID]kernel.Target
	watched  map[kernel.ID]kernel.Allowed
	finished map[kernel.ID]bool // value: ended
	denials  chan kernel.Denial
	denied   []observe.Denied // of every container, told when it is finished
	err      error
}

func newObserver() *observer {
	return &observer{
		targets: map[kernel.ID]kernel.Target{}, watched: map[kernel.ID]kernel.Allowed{},
		finished: map[kernel.ID]bool{}, denials: make(chan kernel.Denial),
	}
}

func (o *observer) Run(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
func (o *observer) Observe(t kernel.Target) (kernel.ID, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		return 0, o.err
	}
	o.last++
	o.targets[o.last] = t
	return o.last, nil
}

func (o *observer) Watch(t kernel.Target, a kernel.Allowed) (kernel.ID, error) {
	id, err := o.Observe(t)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.watched[id] = a
	return id, err
}

func (o *observer) Trace(id kernel.ID) (observe.Trace, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, ok := o.targets[id]; !ok {
		return observe.Trace{}, kernel.ErrUnknown
	}
	return observe.Trace{Length: time.Second}, nil
}

func (o *observer) Finish(id kernel.ID, ended bool) (observe.Trace, error) {
	t, err := o.Trace(id)
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.targets, id)
	o.finished[id] = ended
	t.Ended, t.Denied = ended, o.denied
	return t, err
}
func (o *observer) Denials() <-chan kernel.Denial { return o.denials }

func (o *observer) how(id kernel.ID) (ended, done bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	ended, done = o.finished[id]
	return ended, done
}

// memory is a store that fails while err is set.
type memory struct {
	mu       sync.Mutex
	err      error
	policies map[string]policy.Policy
	events   []api.Event
	exported map[string]string
	saves    int
}

func newStore() *memory {
	return &memory{policies: map[string]policy.Policy{}, exported: map[string]string{}}
}

// with the lock, unless the disk is full.
func (s *memory) with(f func()) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	f()
	return nil
}

func (s *memory) Workloads(context.Context) ([]api.Summary, error) { return nil, nil }
func (s *memory) Policy(ctx context.Context, ref string) (policy.Policy, error) {
	p, ok, err := s.Latest(ctx, ref)
	if !ok {
		err = errors.Join(err, api.ErrNotFound)
	}
	return p, err
}

func (s *memory) PolicyVersion(ctx context.Context, ref string, _ int) (policy.Policy, error) {
	return s.Policy(ctx, ref)
}
func (s *memory) History(context.Context, string) ([]api.Revision, error)    { return nil, nil }
func (s *memory) Floor(context.Context, string) (map[string][]string, error) { return nil, nil }
func (s *memory) Events(_ context.Context, q api.EventQuery) (e []api.Event, err error) {
	err = s.with(func() { e = slices.Clone(s.events[min(int(q.After), len(s.events)):]) })
	return e, err
}

func (s *memory) Import(ctx context.Context, p policy.Policy, why string) error {
	return s.Save(ctx, p, why)
}

func (s *memory) RecordExport(_ context.Context, e api.Export) error {
	return s.with(func() { s.exported[e.Fingerprint] = e.Workload })
}

func (s *memory) Latest(_ context.Context, id string) (p policy.Policy, ok bool, err error) {
	err = s.with(func() { p, ok = s.policies[id] })
	return p, ok, err
}

func (s *memory) Save(_ context.Context, p policy.Policy, _ string) error {
	return s.with(func() { s.policies[p.Workload.ID()] = p; s.saves++ })
}

func (s *memory) Append(_ context.Context, events []api.Event) error {
	return s.with(func() {
		for _, e := range events {
			e.ID = int64(len(s.events) + 1)
			s.events = append(s.events, e)
		}
	})
}
func (s *memory) AddFloor(context.Context, Floor) error { return s.with(func() {}) }
func (s *memory) Exported(context.Context) (m map[string]string, err error) {
	err = s.with(func() { m = s.exported })
	return m, err
}

func (s *memory) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

// texts of the journal.
func (s *memory) texts() (all []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.events {
		all = append(all, e.Kind+": "+e.Text)
	}
	return all
}

// lessons to be learned, changed by the test while the agent runs.
type lessons struct {
	mu sync.Mutex
	l  Lesson
}

func (l *lessons) set(next Lesson) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.l = next
}

func (l *lessons) learn(w workload.Workload, t observe.Trace) Lesson {
	l.mu.Lock()
	defer l.mu.Unlock()
	lesson := l.l
	lesson.Policy.Workload = w
	if lesson.Policy.Partial = t.Account.Problems(); len(lesson.Policy.Partial) > 0 {
		lesson.Policy.Complete = false
		lesson.Policy.Account.Runs, lesson.Policy.Account.LateRuns = 1, 1
	}
	return lesson
}

// lesson with calls by phase.
func lesson(settled bool, phases map[policy.Phase][]string) Lesson {
	calls := &policy.Calls{Phases: map[policy.Phase]syscalls.Set{}}
	l := Lesson{Policy: policy.Policy{
		Complete: true, ABIs: map[syscalls.ABI]*policy.Calls{syscalls.X86_64: calls},
		Settled: policy.Settled{Settled: settled, Bursts: 1000, PUnseen: 0.001},
	}}
	for phase, names := range phases {
		var set syscalls.Set
		for _, n := range names {
			nr, ok := syscalls.Number(syscalls.X86_64, n)
			if !ok {
				panic(n)
			}
			set.Add(nr)
		}
		calls.Phases[phase] = set
		l.Phase = max(l.Phase, phase)
	}
	return l
}

// rig is an agent that runs.
type rig struct {
	*Agent
	t       *testing.T
	obs     *observer
	store   *memory
	lessons *lessons
	client  *api.Client
	stop    func() error
}

func start(t *testing.T, change func(*Config)) *rig {
	t.Helper()
	r := &rig{t: t, obs: newObserver(), store: newStore(), lessons: &lessons{l: lesson(false, nil)}}
	c := Defaults()
	c.Observer, c.Store, c.Learn = r.obs, r.store, r.lessons.learn
	c.Version, c.Log = "test", slog.New(slog.DiscardHandler)
	c.Survey, c.Save = time.Millisecond, time.Millisecond
	if change != nil {
		change(&c)
	}
	socket := filepath.Join(t.TempDir(), "s")
	var err error
	if c.Listener, err = api.Listen(socket); err != nil {
		t.Fatal(err)
	}
	if r.Agent, err = New(c); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	r.client = api.NewClient(socket)
	r.stop = sync.OnceValue(func() error { cancel(); err := <-done; r.client.Close(); return err })
	t.Cleanup(func() {
		if err := r.stop(); err != nil {
			t.Errorf("Run = %v", err)
		}
	})
	return r
}

// sleeper stands for a container's init, until the function is called.
func sleeper(t *testing.T) (pid int, end func()) {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	end = sync.OnceFunc(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	t.Cleanup(end)
	return cmd.Process.Pid, end
}

func registration(id string, pid int) api.Registration {
	return api.Registration{Container: engine.Container{Container: workload.Container{
		Engine: "podman", ID: id, Name: "web-" + id, PID: pid, CgroupID: 424242,
		Workload: workload.Workload{Image: "web", Digest: "sha256:1", Command: []string{"web"}},
	}}}
}

// until the condition holds; the test's own timeout ends it otherwise.
func until(what func() bool) {
	for !what() {
		time.Sleep(time.Millisecond)
	}
}

func (r *rig) journaled(part string) func() bool {
	return func() bool {
		return slices.ContainsFunc(r.store.texts(), func(s string) bool { return strings.Contains(s, part) })
	}
}

func (r *rig) only() api.Container {
	r.t.Helper()
	s, err := r.client.Status(context.Background())
	if err != nil || len(s.Containers) != 1 {
		r.t.Fatalf("status = %+v, %v, want one container", s, err)
	}
	return s.Containers[0]
}

func TestLife(t *testing.T) {
	r := start(t, nil)
	pid, end := sleeper(t)
	reg := registration("1", pid)
	if err := r.client.Register(t.Context(), reg); err != nil {
		t.Fatal(err)
	}
	// Armed when Register has answered.
	if got := r.obs.targets[1]; got.InitPID != pid || got.Late || got.CgroupID != 424242 || !got.Filtered {
		t.Errorf("observed %+v", got)
	}
	r.lessons.set(lesson(false, map[policy.Phase][]string{policy.Boot: {"execve", "brk"}}))
	until(func() bool { return r.only().Distinct == 2 })
	r.lessons.set(lesson(true, map[policy.Phase][]string{policy.Boot: {"execve", "brk"}, policy.Run: {"read"}}))
	until(r.journaled("web-1: boot -> run, 3 calls so far"))
	until(r.journaled("web-1 has settled: 3 calls"))
	if c := r.only(); c.Mode != api.Settled || !strings.Contains(c.Note, "still watching so that its stop is learned") {
		t.Errorf("a settled container whose stop is unknown is shown as %q: %s", c.Mode, c.Note)
	}
	r.lessons.set(lesson(true, map[policy.Phase][]string{policy.Boot: {"execve", "brk"}, policy.Run: {"read", "getrusage"}}))
	until(r.journaled("new after it had settled: getrusage"))
	r.lessons.set(lesson(true, map[policy.Phase][]string{
		policy.Boot: {"execve", "brk"}, policy.Run: {"read", "getrusage"}, policy.Stop: {"unlink"},
	}))
	end()
	until(r.journaled("web-1 ended: 5 calls seen, complete"))
	if ended, done := r.obs.how(1); !ended || !done {
		t.Errorf("finished = %v, ended = %v, want both", done, ended)
	}
	// The next container of the workload: its stop is known, so it is released when it has settled.
	pid2, end2 := sleeper(t)
	if err := r.client.Register(t.Context(), registration("2", pid2)); err != nil {
		t.Fatal(err)
	}
	until(func() bool { return r.only().Mode == api.Known })
	until(func() bool { _, done := r.obs.how(2); return done })
	if ended, _ := r.obs.how(2); ended {
		t.Error("a released container was said to have ended")
	}
	end2()
	until(r.journaled("web-2 ended"))
	if p := r.store.policies[reg.Container.Workload.ID()]; p.ABIs[syscalls.X86_64].All().Len() != 5 {
		t.Errorf("stored %v", p.ABIs[syscalls.X86_64].All().Names(syscalls.X86_64))
	}
}

func TestRegister(t *testing.T) {
	self, err := ownIdentity()
	if err != nil {
		t.Fatal(err)
	}
	dead := exec.Command("true")
	if err := dead.Run(); err != nil {
		t.Fatal(err)
	}
	alive, _ := sleeper(t)
	for _, tc := range []struct {
		name    string
		reg     api.Registration
		err     error // of the observer
		wantErr string
		tracked int
		journal string
	}{
		{name: "fine", reg: registration("a", alive), tracked: 1, journal: "web-a is learned from"},
		{name: "no id", reg: registration("", alive), wantErr: "needs an id"},
		{name: "no pid", reg: registration("a", 0), wantErr: "a pid"},
		{name: "negative pid", reg: registration("a", -1), wantErr: "a pid"},
		{name: "it died meanwhile", reg: registration("a", dead.Process.Pid), journal: "ended before it could be observed"},
		{name: "the agent itself", reg: func() api.Registration {
			reg := registration("a", alive)
			reg.Container.MountNS = self.mountNS
			return reg
		}()},
		{name: "it cannot be observed", reg: registration("a", alive), err: kernel.ErrFull, tracked: 1,
			journal: "web-a cannot be observed: too many"},
		{name: "a profile that is none", reg: func() api.Registration {
			reg := registration("a", alive)
			reg.Profile = json.RawMessage(`[1]`)
			return reg
		}(), tracked: 1, journal: "the seccomp profile of web-a"},
		{name: "a name with control characters", reg: func() api.Registration {
			reg := registration("a", alive)
			reg.Container.Name = "evil\x1b[2J\n"
			return reg
		}(), tracked: 1, journal: "evil?[2J? is learned from"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := start(t, nil)
			r.obs.err = tc.err
			err := r.client.Register(t.Context(), tc.reg)
			if tc.wantErr == "" && err != nil || tc.wantErr != "" && (err == nil || !strings.Contains(err.Error(), tc.wantErr)) {
				t.Errorf("Register = %v, want %q", err, tc.wantErr)
			}
			s, err := r.client.Status(t.Context())
			if err != nil || len(s.Containers) != tc.tracked {
				t.Errorf("status has %d containers (%v), want %d", len(s.Containers), err, tc.tracked)
			}
			if tc.journal != "" {
				until(r.journaled(tc.journal))
			}
		})
	}
}

func TestEnforced(t *testing.T) {
	p := lesson(true, map[policy.Phase][]string{policy.Boot: {"execve", "read"}}).Policy
	rules, err := filter.FromPolicy(p, policy.Selection{})
	if err != nil {
		t.Fatal(err)
	}
	profile, err := filter.OCI(rules)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(profile)
	if err != nil {
		t.Fatal(err)
	}
	r := start(t, nil)
	export := api.Export{Workload: "w", Fingerprint: filter.Fingerprint(profile), Format: "oci"}
	if err := r.client.RecordExport(t.Context(), export); err != nil {
		t.Fatal(err)
	}
	pid, end := sleeper(t)
	reg := registration("1", pid)
	reg.Profile = text
	if err := r.client.Register(t.Context(), reg); err != nil {
		t.Fatal(err)
	}
	nr, _ := syscalls.Number(syscalls.X86_64, "read")
	if !r.obs.watched[1].Calls[syscalls.X86_64].Has(nr) {
		t.Error("the watch does not know that read is allowed")
	}
	unshare, _ := syscalls.Number(syscalls.X86_64, "unshare")
	for count := uint64(1); count <= 1<<14; count *= 2 {
		r.obs.denials <- kernel.Denial{
			Container: 1, PID: 77, Comm: "sh\x07", Lane: observe.LaneExec, Errno: 1, Count: count,
			Call: syscalls.Call{ABI: syscalls.X86_64, Nr: unshare},
		}
	}
	until(func() bool { c := r.only(); return len(c.Refused) == 1 && c.Refused[0].Count == 1<<14 })
	if c := r.only(); c.Mode != api.Enforced || c.Refused[0].Comm != "sh?" {
		t.Errorf("shown as %+v", c)
	}
	r.obs.mu.Lock() // what the kernel counted, and told too late or not at all
	keyctl, _ := syscalls.Number(syscalls.X86_64, "keyctl")
	r.obs.denied = []observe.Denied{
		{Lane: observe.LaneExec, Call: syscalls.Call{ABI: syscalls.X86_64, Nr: unshare}, Errno: 1, Count: 20000},
		{Lane: observe.LaneService, Call: syscalls.Call{ABI: syscalls.X86_64, Nr: keyctl}, Errno: 1, Count: 1},
	}
	r.obs.mu.Unlock()
	end()
	until(r.journaled("web-1 ended"))
	var refused []string
	for _, text := range r.store.texts() {
		if strings.HasPrefix(text, kindRefused) {
			refused = append(refused, text)
		}
	}
	// 1, 16, 256, 4096, and the rest at the end: counts, not rows.
	if len(refused) != 6 || refused[0] != "refused: web-1: refused: unshare by sh?[77] lane exec, EPERM; to allow it from the next start on: whittle policy allow web-2c9a unshare" ||
		!r.journaled("lane exec, EPERM, 20000 times")() || !r.journaled("keyctl by ?[0] lane service")() {
		t.Errorf("journaled\n%s", strings.Join(refused, "\n"))
	}
	if len(r.store.policies) != 0 {
		t.Error("an enforced container was learned from")
	}
}

func TestStoreFailure(t *testing.T) {
	r := start(t, nil)
	until(r.journaled("agent test started"))
	r.store.fail(errors.New("disk full"))
	pid, end := sleeper(t)
	if err := r.client.Register(t.Context(), registration("1", pid)); err != nil {
		t.Errorf("Register while the store fails = %v, want nil: learning goes on in memory", err)
	}
	r.lessons.set(lesson(false, map[policy.Phase][]string{policy.Boot: {"execve"}}))
	end()
	until(func() bool {
		s, err := r.client.Status(context.Background())
		return err == nil && len(s.Containers) == 0 && len(s.Problems) == 1 && strings.Contains(s.Problems[0], "disk full")
	})
	r.store.fail(nil)
	until(r.journaled("web-1 ended")) // nothing that happened meanwhile is lost
	until(func() bool {
		_, ok, _ := r.store.Latest(context.Background(), registration("1", 1).Container.Workload.ID())
		return ok
	})
	until(func() bool {
		s, err := r.client.Status(context.Background())
		return err == nil && len(s.Problems) == 0
	})
}

func TestShutdown(t *testing.T) {
	r := start(t, func(c *Config) { c.Save = time.Hour })
	for i := range 20 {
		pid, _ := sleeper(t)
		if err := r.client.Register(t.Context(), registration(fmt.Sprint(i), pid)); err != nil {
			t.Fatal(err)
		}
	}
	r.lessons.set(lesson(false, map[policy.Phase][]string{policy.Boot: {"execve"}}))
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	if len(r.obs.finished) != 20 {
		t.Errorf("%d of 20 containers were drained", len(r.obs.finished))
	}
	p := r.store.policies[registration("0", 1).Container.Workload.ID()]
	if len(p.Partial) != 1 || !strings.Contains(p.Partial[0], "stopped while the container ran") {
		t.Errorf("partial = %q", p.Partial)
	}
	if !r.journaled("agent stops")() || !r.journaled("web-19 is no longer observed")() {
		t.Errorf("journal:\n%s", strings.Join(r.store.texts(), "\n"))
	}
}

// fakeEngine has one container that runs and one that is started later.
type fakeEngine struct {
	running, later engine.Container
	err            error
}

func (f *fakeEngine) Name() string { return "podman" }
func (f *fakeEngine) List(context.Context) ([]engine.Container, error) {
	return []engine.Container{f.running}, f.err
}

func (f *fakeEngine) Inspect(_ context.Context, id string) (engine.Container, error) {
	if id != f.later.ID {
		return engine.Container{}, engine.ErrUnknownContainer
	}
	return f.later, nil
}

func (f *fakeEngine) Watch(ctx context.Context, tell func(engine.Event)) error {
	if f.err != nil {
		return f.err
	}
	tell(engine.Event{Kind: engine.Ready})
	tell(engine.Event{Kind: engine.Start, ID: "nobody"})
	tell(engine.Event{Kind: engine.Start, ID: f.later.ID})
	<-ctx.Done()
	return nil
}

func TestDiscover(t *testing.T) {
	one, _ := sleeper(t)
	two, _ := sleeper(t)
	e := &fakeEngine{running: registration("1", one).Container, later: registration("2", two).Container}
	e.running.State, e.later.State = engine.Running, engine.Running
	r := start(t, func(c *Config) { c.Engines = []engine.Engine{e} })
	until(r.journaled("web-1 is learned from, already running"))
	until(r.journaled("web-2 is learned from, already running"))
	s, err := r.client.Status(t.Context())
	if err != nil || len(s.Containers) != 2 || !s.Containers[0].Late {
		t.Errorf("status = %+v, %v, want two late containers", s, err)
	}
}

func TestEngineMissing(t *testing.T) {
	e := &fakeEngine{err: fmt.Errorf("%w at /run/podman/podman.sock", engine.ErrUnavailable)}
	r := start(t, func(c *Config) { c.Engines = []engine.Engine{e} })
	until(func() bool {
		s, err := r.client.Status(context.Background())
		return err == nil && len(s.Problems) == 1 && strings.HasPrefix(s.Problems[0], "podman: the engine does not answer")
	})
}

// TestEventsOfWhatStatusShows: they are not kept waiting by what there is to learn.
func TestEventsOfWhatStatusShows(t *testing.T) {
	learned, goOn := 0, make(chan struct{})
	r := start(t, func(c *Config) {
		learn := c.Learn
		c.Survey = time.Hour // so that only ended containers are learned from
		c.Learn = func(w workload.Workload, trace observe.Trace) Lesson {
			if learned++; learned == 2 {
				<-goOn
			}
			return learn(w, trace)
		}
	})
	defer close(goOn)
	for _, id := range []string{"1", "2"} {
		pid, _ := sleeper(t)
		if err := r.client.Register(t.Context(), registration(id, pid)); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range []string{"1", "2"} {
		if err := r.Gone(t.Context(), api.Peer{}, api.Gone{Engine: "podman", ID: id}); err != nil {
			t.Fatal(err)
		}
	}
	until(func() bool {
		s, err := r.client.Status(t.Context())
		return err == nil && len(s.Containers) == 1
	})
	events, err := r.client.Events(t.Context(), api.EventQuery{})
	if err != nil || !slices.ContainsFunc(events, func(e api.Event) bool { return e.Kind == kindStop && e.Container == "web-1" }) {
		t.Errorf("status shows that web-1 has ended, and the events are %+v, %v", events, err)
	}
}

func TestFollow(t *testing.T) {
	r := start(t, nil)
	enough := errors.New("enough")
	started := make(chan struct{})
	got := make(chan []string, 1)
	go func() {
		var texts []string
		_ = r.client.Follow(context.Background(), 0, func(e api.Event) error {
			if texts = append(texts, e.Text); len(texts) == 1 {
				close(started)
			}
			if strings.Contains(e.Text, "learned from") {
				return enough
			}
			return nil
		})
		got <- texts
	}()
	<-started
	pid, _ := sleeper(t)
	if err := r.client.Register(t.Context(), registration("1", pid)); err != nil {
		t.Fatal(err)
	}
	want := []string{fmt.Sprintf("agent test started with pid %d", os.Getpid()), "web-1 is learned from"}
	if texts := <-got; !slices.Equal(texts, want) {
		t.Errorf("followed %q, want %q", texts, want)
	}
}
