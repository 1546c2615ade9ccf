// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"slices"
	"sync"

	"github.com/whittle-sec/whittle/internal/judge"
	"github.com/whittle-sec/whittle/internal/plan"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/ward"
)

// sharedOrders are the newest orders of each workload, so that all its containers go by the same ones: they are most of what
// the agent would keep of a supervised container (some 64 KB).
type sharedOrders struct {
	rules  judge.Associations
	mu     sync.Mutex
	newest map[orderKey]*ward.Orders
}

// orderKey tells what is stored from what is known of containers that run, which goes beyond it: both are asked for in turn.
type orderKey struct {
	workload string
	live     bool
}

// of a policy. A revision's evidence grows with every start; the last orders stand while they let the same calls through and
// allow the same others.
func (s *sharedOrders) of(k orderKey, p policy.Policy, revision int) *ward.Orders {
	fresh := ward.OrdersOf(p, revision, planOptions(), s.rules)
	s.mu.Lock()
	defer s.mu.Unlock()
	if o := s.newest[k]; o != nil && sameOrders(o, fresh) {
		return o
	}
	if s.newest == nil {
		s.newest = map[orderKey]*ward.Orders{}
	}
	s.newest[k] = fresh
	return fresh
}

func sameOrders(a, b *ward.Orders) bool {
	return a.Revision == b.Revision && a.Policy.Complete == b.Policy.Complete && len(policy.Diff(a.Policy, b.Policy)) == 0 &&
		slices.EqualFunc(a.Plan.Entries(), b.Plan.Entries(), func(x, y plan.Entry) bool {
			return x.Call == y.Call && x.Place == y.Place && x.Bulk == y.Bulk
		})
}
