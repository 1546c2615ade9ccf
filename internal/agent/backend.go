// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/policy"
)

var _ api.Backend = (*Agent)(nil)

// Status of the agent and its containers.
func (a *Agent) Status(ctx context.Context) (s api.Status, err error) {
	err = a.ask(ctx, func(m *model) error { s = m.status(); return nil })
	return s, err
}

// Register a container that its hook told of, before its first call. It is observed when Register returns nil.
func (a *Agent) Register(ctx context.Context, by api.Peer, r api.Registration) error {
	owner := uint32(0)
	if !by.Privileged() {
		owner = by.UID
		if err := claim(&r.Container, owner); err != nil {
			return err
		}
	}
	return a.ask(ctx, func(m *model) error { return m.register(r, owner, false) })
}

// Gone tells that a container was deleted.
func (a *Agent) Gone(ctx context.Context, by api.Peer, g api.Gone) error {
	return a.ask(ctx, func(m *model) error {
		if c := m.containers[key{g.Engine, g.ID}]; c != nil && !c.gone {
			if !by.Privileged() && c.owner != by.UID {
				return fmt.Errorf("%w: container %s is not one of user %d", api.ErrForbidden, c.view.Name, by.UID)
			}
			m.finish(c, ending{ended: true})
		}
		return nil
	})
}

// Workloads that have a stored policy.
func (a *Agent) Workloads(ctx context.Context) ([]api.Summary, error) { return a.Store.Workloads(ctx) }

// Policy of a workload, as it was stored last.
func (a *Agent) Policy(ctx context.Context, ref string) (policy.Policy, error) {
	return a.Store.Policy(ctx, ref)
}

// PolicyVersion of a workload.
func (a *Agent) PolicyVersion(ctx context.Context, ref string, version int) (policy.Policy, error) {
	return a.Store.PolicyVersion(ctx, ref, version)
}

// History of a policy.
func (a *Agent) History(ctx context.Context, ref string) ([]api.Revision, error) {
	return a.Store.History(ctx, ref)
}

// Floor measured for the runtimes of a workload.
func (a *Agent) Floor(ctx context.Context, ref string) (map[string][]string, error) {
	return a.Store.Floor(ctx, ref)
}

// Events of the journal. Whatever Status has shown is among them.
func (a *Agent) Events(ctx context.Context, q api.EventQuery) ([]api.Event, error) {
	if err := a.journaled(ctx); err != nil {
		return nil, err
	}
	return a.Store.Events(ctx, q)
}

// journaled waits until the scholar has written, or tried to write, what has happened by now.
func (a *Agent) journaled(ctx context.Context) error {
	written := make(chan struct{})
	err := a.ask(ctx, func(m *model) error {
		for _, c := range m.containers {
			if c.held != nil {
				m.tellHeld(c)
			}
		}
		if len(m.events) == 0 && !m.writing {
			close(written)
			return nil
		}
		m.readers = append(m.readers, written)
		return nil
	})
	if err != nil && !errors.Is(err, ErrStopping) {
		return err
	}
	select {
	case <-written:
	case <-a.done:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// Import a policy. What running containers teach is added to it.
func (a *Agent) Import(ctx context.Context, p policy.Policy, why string) error {
	done := make(chan error, 1)
	err := a.ask(ctx, func(m *model) error {
		m.queue = append(m.queue, importJob{p, why, done})
		return nil
	})
	if err != nil {
		return err
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// RecordExport of a profile: containers that start under it are enforced.
func (a *Agent) RecordExport(ctx context.Context, e api.Export) error {
	if err := a.Store.RecordExport(ctx, e); err != nil {
		return err
	}
	return a.ask(ctx, func(m *model) error {
		m.exported[e.Fingerprint] = e.Workload
		m.workloadEvent(kindExported, e.Workload, "a profile of "+e.Workload+" was exported as "+e.Format)
		return nil
	})
}

// importJob keeps the scholar the only writer of policies.
type importJob struct {
	p    policy.Policy
	why  string
	done chan<- error
}

func (j importJob) do(ctx context.Context, s *scholar) func(*model) {
	err := s.agent.Store.Import(ctx, j.p, j.why)
	if b := s.books[j.p.Workload.ID()]; err == nil && b != nil {
		b.add(j.p)
		b.dirty = true
	}
	j.done <- err
	return nil
}

// Follow new events.
func (a *Agent) Follow(ctx context.Context, after int64, send func(api.Event) error) error {
	for ended := false; ; {
		fresh := a.news.wait() // before reading, so that what comes meanwhile is not missed
		events, err := a.Store.Events(ctx, api.EventQuery{After: after, Limit: 1000, Oldest: true})
		if err != nil {
			return err
		}
		for _, e := range events {
			if err := send(e); err != nil {
				return err
			}
			after = e.ID
		}
		if len(events) > 0 {
			continue
		}
		if ended {
			return nil
		}
		select {
		case <-fresh:
		case <-ctx.Done():
			return ctx.Err()
		case <-a.done:
			ended = true // but for what was journaled last
		}
	}
}

// news wakes everybody who waits for events.
type news struct {
	mu sync.Mutex
	ch chan struct{}
}

func newNews() *news { return &news{ch: make(chan struct{})} }

func (n *news) wait() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.ch
}

func (n *news) broadcast() {
	n.mu.Lock()
	defer n.mu.Unlock()
	close(n.ch)
	n.ch = make(chan struct{})
}
