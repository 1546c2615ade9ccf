// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"strings"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
	"github.com/whittle-sec/whittle/internal/ward"
)

var _ api.Granter = (*Agent)(nil)

// Grant a call to a workload, or take it away, on a person's word. Supervised containers have it when Grant returns.
func (a *Agent) Grant(ctx context.Context, _ api.Peer, g api.GrantRequest) (out api.GrantResult, err error) {
	p, err := a.Store.Policy(ctx, g.Workload)
	if err != nil {
		return out, err
	}
	id := p.Workload.ID()
	calls, err := callsNamed(p, g.Call)
	if err != nil {
		return out, err
	}
	done := make(chan grantDone, 1)
	err = a.ask(ctx, func(m *model) error {
		m.queue = append(m.queue, grantJob{id, calls, g, done})
		return nil
	})
	if err != nil {
		return out, err
	}
	var d grantDone
	select {
	case d = <-done:
	case <-ctx.Done():
		return out, ctx.Err()
	}
	if d.err != nil {
		return out, d.err
	}
	o, err := a.loadOrders(ctx, id)
	if err != nil {
		return out, err
	}
	out = api.GrantResult{Workload: id, Name: p.Workload.Name(), Version: o.Revision, Changes: d.changes}
	err = a.ask(ctx, func(m *model) error {
		m.orders[id] = o
		verb := "denied"
		if g.Allow {
			verb = "allowed"
		}
		m.workloadEvent(kindGrant, id, fmt.Sprintf("%s: %s %s by %s: %s", out.Name, g.Call, verb, cmpOr(g.By, "root"), cmpOr(g.Why, "no reason given")))
		if g.Allow {
			m.widened(id, g.Call+" was allowed after it had started")
		}
		for _, c := range m.containers {
			if c.view.WorkloadID != id || c.gone {
				continue
			}
			switch {
			case c.isSealed:
				out.Notes = append(out.Notes, c.view.Name+" is sealed: it has this after its next start")
			case c.held != nil:
				c.held.ward.SetOrders(o)
				out.Containers = append(out.Containers, c.view.Name)
			case c.view.Mode == api.Enforced:
				out.Notes = append(out.Notes, c.view.Name+" runs under a static profile: export it again and start the container again")
			}
		}
		return nil
	})
	return out, err
}

// renewOrders of the containers that were seen. What hundreds of a workload teach together takes hundreds of merges, and is the
// same for each of them.
func (s *scholar) renewOrders(who []subject, seen map[key]glance) {
	type going struct {
		workload string
		by       *ward.Orders
	}
	fresh := map[going]*ward.Orders{}
	for _, w := range who {
		g := seen[w.key]
		if g.err != nil || w.orders == nil {
			continue
		}
		k := going{w.workload.ID(), w.orders}
		if _, known := fresh[k]; !known {
			fresh[k] = s.newOrders(k.workload, k.by)
		}
		g.orders = fresh[k]
		seen[w.key] = g
	}
}

// newOrders of a workload whose policy allows something else than the old ones; nil when it does not.
func (s *scholar) newOrders(id string, old *ward.Orders) *ward.Orders {
	b := s.books[id]
	if old == nil || b == nil || !b.loaded {
		return nil
	}
	p := b.whole()
	if len(policy.Diff(old.Policy, p)) == 0 {
		return nil
	}
	return s.agent.orders.of(orderKey{id, true}, p, old.Revision)
}

// callsNamed NAME or ABI:NAME in the ABIs of a policy.
func callsNamed(p policy.Policy, name string) (calls []syscalls.Call, err error) {
	abiName, call, found := strings.Cut(name, ":")
	if !found {
		call = name
	}
	for _, abi := range syscalls.ABIs {
		if found && abi.String() != abiName || !found && p.ABIs[abi] == nil {
			continue
		}
		if nr, ok := syscalls.Number(abi, call); ok {
			calls = append(calls, syscalls.Call{ABI: abi, Nr: nr})
		}
	}
	if len(calls) == 0 {
		return nil, fmt.Errorf("%w: no call is named %q in the policy's ABIs", api.ErrInvalid, name)
	}
	return calls, nil
}

type grantDone struct {
	changes []policy.Change
	err     error
}

// grantJob keeps the scholar the only writer of policies.
type grantJob struct {
	id    string
	calls []syscalls.Call
	g     api.GrantRequest
	done  chan<- grantDone
}

func (j grantJob) do(ctx context.Context, s *scholar) func(*model) {
	changes, err := s.grant(ctx, j)
	j.done <- grantDone{changes, err}
	return nil
}

func (s *scholar) grant(ctx context.Context, j grantJob) ([]policy.Change, error) {
	b := s.book(ctx, j.id)
	if !b.loaded || !b.started {
		return nil, fmt.Errorf("%w: its policy cannot be read now", api.ErrNotFound)
	}
	by, why := cmpOr(j.g.By, "root"), j.g.Why
	before := b.whole()
	change := func(p policy.Policy) (policy.Policy, error) {
		if j.g.Allow {
			return policy.Grant(p, j.calls, j.g.Phases, by, why)
		}
		return policy.Withdraw(p, j.calls, by, why)
	}
	base, err := change(b.base)
	if err != nil {
		return nil, err
	}
	b.base, b.dirty = base, true
	verb := "denied by "
	if j.g.Allow {
		verb = "allowed by "
	}
	s.saveBook(ctx, j.id, b, j.g.Call+" "+verb+by)
	if s.trouble != "" {
		return nil, fmt.Errorf("the policy is changed in memory, and not yet on the disk: %s", s.trouble)
	}
	return policy.Diff(before, b.whole()), nil
}
