// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"sync"
	"time"

	"github.com/whittle-sec/whittle/internal/policy"
)

// Facts of a policy that a list of policies tells.
type Facts struct {
	Partial     []string
	Settled     policy.Settled
	Runs        int
	ByPhase     map[policy.Phase]int // calls of the service
	Quarantined int
}

// known facts, by workload. A policy is large, and lists are asked for every second.
type known struct {
	mu sync.Mutex
	of map[string]knownFacts
}

type knownFacts struct {
	revision int
	updated  time.Time
	Facts
}

// Facts of the policy of an entry, from memory where it is as it was. They are shared: only to be read.
func (s *Store) Facts(ctx context.Context, e Entry) (Facts, error) {
	s.known.mu.Lock()
	k, ok := s.known.of[e.ID]
	s.known.mu.Unlock()
	if ok && k.revision == e.Revision.Number && k.updated.Equal(e.Revision.Updated) {
		return k.Facts, nil
	}
	p, r, err := s.PolicyAt(ctx, e.ID, e.Revision.Number)
	if err != nil {
		return Facts{}, err
	}
	k = knownFacts{r.Number, r.Updated, factsOf(p)}
	s.known.mu.Lock()
	defer s.known.mu.Unlock()
	if s.known.of == nil {
		s.known.of = map[string]knownFacts{}
	}
	s.known.of[e.ID] = k
	return k.Facts, nil
}

// changed policy of a workload: two changes may have the same time.
func (k *known) changed(id string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.of, id)
}

func factsOf(p policy.Policy) Facts {
	f := Facts{Partial: p.Partial, Settled: p.Settled, Runs: p.Account.Runs, ByPhase: make(map[policy.Phase]int, len(policy.Phases))}
	for _, calls := range p.ABIs {
		for _, phase := range policy.Phases {
			f.ByPhase[phase] += calls.Phases[phase].Len()
		}
		f.Quarantined += len(calls.Quarantined)
	}
	return f
}
