// SPDX-License-Identifier: Apache-2.0

// Package agent is the node daemon: it notices containers, has them observed, learns from what was seen, and reports what
// was refused. It decides nothing about policies (packages learn and policy do) and touches no kernel interface but
// pidfds.
//
// Three goroutines share the work. The owner (Run's select) has the model of the containers to itself; others send it
// functions. The scholar reads traces, learns and writes to the store, so that a slow disk never delays a container's start.
// The server answers at the socket. Beside them, one goroutine for each engine and one for each pidfd only wait and send.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/engine/process"
	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/internal/supervise"
	"github.com/whittle-sec/whittle/internal/workload"
)

// drainTime bounds what happens after SIGTERM: engines and init systems kill after 10 seconds and less.
const drainTime = 4 * time.Second

// Config of an agent. All fields are needed, but Engines may be empty.
type Config struct {
	Observer Observer
	Store    Store
	Learn    func(workload.Workload, observe.Trace) Lesson
	Engines  []engine.Engine
	// Supervising is nil for an agent that only learns and reports.
	Supervising *Supervising
	// Judging is nil for an agent that refuses whatever is not in a policy.
	Judging *Judging
	// Moving is nil for an agent that makes no containers.
	Moving   *Moving
	Listener *net.UnixListener // closed by Run
	Version  string
	State    string // the store's directory, shown by status
	Log      *slog.Logger
	Now      func() time.Time
	Survey   time.Duration // how often each learning container is looked at
	Save     time.Duration // how often what was learned is stored
}

// Defaults of the fields that have one.
func Defaults() Config {
	return Config{Learn: Learn, Now: time.Now, Survey: 2 * time.Second, Save: 30 * time.Second}
}

// Agent is made by New and lives for one Run.
type Agent struct {
	Config
	started  time.Time
	self     identity
	ops      chan func(*model) // run by the owner
	results  chan func(*model) // of the scholar, run by the owner
	jobs     chan job          // to the scholar
	news     *news             // wakes whoever follows events
	done     chan struct{}     // closed when the owner has ended
	orders   sharedOrders
	fleet    fleet
	desk     desk
	twins    twins
	renewing chan renewal  // to whoever makes them
	reading  chan struct{} // slots for what is read about held calls
	warming  chan struct{} // one slot for what is read ahead
	wg       sync.WaitGroup
}

// New agent.
func New(c Config) (*Agent, error) {
	self, err := ownIdentity()
	if err != nil {
		return nil, fmt.Errorf("find the agent's own container: %w", err)
	}
	a := &Agent{
		Config: c, self: self, started: c.Now(),
		ops: make(chan func(*model)), results: make(chan func(*model)), jobs: make(chan job),
		news: newNews(), done: make(chan struct{}), reading: make(chan struct{}, readers), warming: make(chan struct{}, 1),
	}
	a.desk = desk{now: c.Now, tell: a.tellAsked}
	a.renewing = make(chan renewal)
	a.twins = twins{fresh: make(chan *twin), of: map[string]*twin{}, oracles: map[string]*twin{}}
	if c.Judging != nil {
		a.orders.rules, a.desk.limit = c.Judging.Rules, c.Judging.Ask
	}
	return a, nil
}

// Run until ctx is done, then drain every container, store what was learned and return nil.
func (a *Agent) Run(ctx context.Context) error {
	exported, err := a.Store.Exported(ctx)
	if err != nil {
		return fmt.Errorf("read the exported profiles: %w", err)
	}
	// What drains the containers outlives ctx; everything else ends with it.
	m := newModel(a, exported)
	if err := m.readModes(ctx); err != nil {
		return err
	}
	if err := m.readRecords(ctx); err != nil {
		return err
	}
	if a.Moving != nil && a.Supervising != nil {
		if err := a.readTwins(ctx); err != nil {
			return err
		}
	}
	if err := m.readRenewals(ctx); err != nil {
		return err
	}
	late, cancelLate := context.WithCancel(context.WithoutCancel(ctx))
	defer cancelLate()
	early, cancelEarly := context.WithCancel(ctx)
	defer cancelEarly()
	fatal := make(chan error, 5)
	a.start(func() { fatal <- wrap("observe", a.Observer.Run(late)) })
	a.start(func() { a.study(late) })
	a.start(func() { a.readDenials(early) })
	server := &api.Server{Backend: a, Version: a.Version, Log: a.Log, Drain: drainTime + time.Second}
	a.start(func() { fatal <- wrap("serve", server.Serve(early, a.Listener)) })
	for _, e := range a.Engines {
		a.start(func() { a.discover(early, e) })
	}
	if s := a.Supervising; s != nil {
		for _, supervisor := range []*supervise.Supervisor{s.Supervisor, s.Rootless} {
			defer supervisor.Close()
			a.start(func() { fatal <- wrap("supervise", supervisor.Run(early)) })
		}
		a.start(func() { a.readArrivals(early) })
		a.start(func() { a.keep(early) })
		a.start(func() { a.reconcile(early) })
	}
	if a.Moving != nil && a.Supervising != nil {
		a.start(func() { a.renewContainers(early) })
		a.start(func() { a.driveTwins(early) })
	}
	m.event(kindAgent, nil, fmt.Sprintf("agent %s started with pid %d", a.Version, os.Getpid()))
	err = m.own(ctx, fatal)
	cancelEarly()
	m.drain(late)
	close(a.done)
	cancelLate()
	m.closeAll()
	a.wg.Wait()
	return err
}

// start a goroutine that Run waits for.
func (a *Agent) start(f func()) {
	a.wg.Go(f)
}

func wrap(doing string, err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return nil
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// ErrStopping is returned to whoever asks an agent that is shutting down.
var ErrStopping = errors.New("the agent is shutting down")

// ask has the owner run f, and waits for its error.
func (a *Agent) ask(ctx context.Context, f func(*model) error) error {
	answer := make(chan error, 1)
	select {
	case a.ops <- func(m *model) { answer <- f(m) }:
	case <-ctx.Done():
		return ctx.Err()
	case <-a.done:
		return fmt.Errorf("%w", ErrStopping)
	}
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// identity is what tells a container from the agent's own.
type identity struct{ cgroup, mountNS uint64 }

func ownIdentity() (identity, error) {
	p, err := process.Open(os.Getpid())
	if err != nil {
		return identity{}, err
	}
	defer p.Close()
	cgroup, err := p.CgroupID()
	if err != nil {
		return identity{}, err
	}
	ns, err := p.MountNS()
	return identity{cgroup, ns}, err
}

// is tells whether the agent runs in this container. Every container has a mount namespace of its own.
func (i identity) is(c engine.Container) bool {
	return c.MountNS != 0 && c.MountNS == i.mountNS || c.CgroupID > 1 && c.CgroupID == i.cgroup
}
