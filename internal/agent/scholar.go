// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// maxPending events wait in memory while the store fails; then the oldest are dropped and counted.
const maxPending = 10_000

// scholar learns and is the only one that writes what was learned. What the store does not take is kept and tried again.
type scholar struct {
	agent   *Agent
	books   map[string]*book // by workload ID
	pending []api.Event
	dropped int
	floors  []Floor
	quota   quota
	trouble string // what the store said last; "" when it took everything
}

// book of one workload: what its ended containers taught, and what the running ones teach so far. Proposals of running
// containers are cumulative, so each replaces its predecessor instead of being merged into it.
type book struct {
	base    policy.Policy
	loaded  bool // base holds what was stored before
	dirty   bool
	started bool // base holds anything
	live    map[key]policy.Policy
	total   sum                    // of live
	told    map[syscalls.Call]bool // of what is in quarantine
}

// study does jobs until ctx is done.
func (a *Agent) study(ctx context.Context) {
	s := &scholar{agent: a, books: map[string]*book{}}
	for {
		select {
		case <-ctx.Done():
			return
		case j := <-a.jobs:
			result, trouble := j.do(ctx, s), s.trouble
			select {
			case a.results <- func(m *model) {
				if result != nil {
					result(m)
				}
				m.problem("store", trouble)
			}:
			case <-ctx.Done():
				return
			case <-a.done:
			}
		}
	}
}

// book of a workload, with what was stored of it as soon as the store can be read.
func (s *scholar) book(ctx context.Context, id string) *book {
	b := s.books[id]
	if b == nil {
		b = &book{live: map[key]policy.Policy{}}
		s.books[id] = b
	}
	if b.loaded {
		return b
	}
	stored, ok, err := s.agent.Store.Latest(ctx, id)
	if err != nil {
		s.failed("read a policy", err)
		return b
	}
	b.loaded = true
	if ok {
		b.add(stored)
		b.doubts(stored) // told when they came
	}
	return b
}

// add what a container taught, for good.
func (b *book) add(p policy.Policy) {
	if b.started {
		p = policy.Merge(b.base, p)
	}
	b.base, b.started = p, true
}

// whole is everything known.
func (b *book) whole() policy.Policy {
	live, some := b.total.merged()
	if !some {
		return b.base
	}
	if b.started {
		live = policy.Merge(b.base, live)
	}
	return live
}

// live replaces what a running container teaches so far.
func (s *scholar) live(ctx context.Context, who subject, l Lesson) []doubt {
	b := s.book(ctx, who.workload.ID())
	p := b.trusted(who.key, l)
	b.live[who.key] = p
	b.total.put(who.key, p)
	b.dirty = true
	return b.doubts(p)
}

// fold what a container taught into the book, and store it.
func (s *scholar) fold(ctx context.Context, who subject, l Lesson) []doubt {
	b := s.book(ctx, who.workload.ID())
	delete(b.live, who.key)
	b.total.remove(who.key)
	p := b.trusted(who.key, l)
	fresh := b.doubts(p)
	b.add(p)
	b.dirty = true
	s.saveBook(ctx, who.workload.ID(), b, "learned from "+who.engine+" container "+short(who.key.id))
	return fresh
}

// save every book that changed, and what could not be stored before.
func (s *scholar) save(ctx context.Context) {
	for id, b := range s.books {
		s.saveBook(ctx, id, b, "learning")
	}
	s.journal(ctx, nil)
	s.saveFloors(ctx)
}

func (s *scholar) saveBook(ctx context.Context, id string, b *book, why string) {
	if b.dirty {
		// A book that was not loaded would overwrite what is stored.
		if b = s.book(ctx, id); !b.loaded {
			return
		}
		if err := s.agent.Store.Save(ctx, b.whole(), why); err != nil {
			s.failed("store a policy", err)
			return
		}
		s.trouble = ""
		b.dirty = false
	}
	if len(b.live) == 0 {
		delete(s.books, id)
	}
}

// stopKnown tells whether a container of the workload was seen to stop, in a run that missed nothing.
func (s *scholar) stopKnown(id string) bool {
	b := s.books[id]
	if b == nil || !b.started || !b.base.Complete {
		return false
	}
	for _, calls := range b.base.ABIs {
		if !calls.Phases[policy.Stop].Empty() {
			return true
		}
	}
	return false
}

// floor keeps what the runtime needed to start the container.
func (s *scholar) floor(ctx context.Context, r api.Registration, t observe.Trace) {
	calls := runtimeCalls(t)
	if len(calls) == 0 || r.RuntimeDigest == "" {
		return
	}
	s.floors = append(s.floors, Floor{
		Runtime: r.RuntimeDigest, NoNewPrivileges: r.Container.NoNewPrivileges,
		Workload: r.Container.Workload.ID(), Calls: withRare(starting{r.Container.Runtime.Name, r.Container.NoNewPrivileges}, calls),
	})
	s.saveFloors(ctx)
}

func (s *scholar) saveFloors(ctx context.Context) {
	for len(s.floors) > 0 {
		if err := s.agent.Store.AddFloor(ctx, s.floors[0]); err != nil {
			s.failed("store a floor", err)
			break
		}
		s.floors = s.floors[1:]
	}
	// Floors of one runtime repeat: the latest ones say the same.
	s.floors = s.floors[max(0, len(s.floors)-1000):]
}

// journal appends events, those that could not be stored before first.
func (s *scholar) journal(ctx context.Context, events []api.Event) {
	s.pending = append(s.pending, s.quota.within(events, s.agent.Now())...)
	if len(s.pending) == 0 {
		return
	}
	if err := s.agent.Store.Append(ctx, s.pending); err != nil {
		s.failed("write the journal", err)
		if over := len(s.pending) - maxPending; over > 0 {
			s.pending, s.dropped = s.pending[over:], s.dropped+over
		}
		return
	}
	s.pending, s.trouble = nil, ""
	s.agent.news.broadcast()
	if s.dropped > 0 {
		n := s.dropped
		s.dropped = 0
		s.journal(ctx, []api.Event{{Time: s.agent.Now(), Kind: kindProblem,
			Text: fmt.Sprintf("%d events were dropped while the store failed", n)}})
	}
}

// failed is shown by status; what was to be stored is kept.
func (s *scholar) failed(doing string, err error) {
	s.trouble = fmt.Sprintf("%s: %v; what is learned is kept in memory and tried again", doing, err)
	s.agent.Log.Error(doing, "err", err)
}

func short(id string) string { return id[:min(len(id), 12)] }
