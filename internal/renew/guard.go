// SPDX-License-Identifier: Apache-2.0

package renew

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/whittle-sec/whittle/internal/traffic"
)

// Guard stands beside the sockets of a container that may end at any moment by itself: who connects then waits, until another
// container has taken its place or the guard is closed. It has no journal: when its process is killed, the kernel undoes it, and
// connections go to whoever listens.
type Guard struct{ p *passage }

// Stand beside a container that serves, in a network that stays; else the error is an ErrRefused. It is quick: whatever is not
// needed for that is not looked at.
func (r *Runner) Stand(ctx context.Context, container string) (*Guard, error) {
	b, err := r.Engine.Blueprint(ctx, container)
	if err == nil && !b.NetworkKept {
		err = fmt.Errorf("%w: its network goes away with it", ErrRefused)
	}
	if err != nil {
		return nil, fmt.Errorf("stand beside %s: %w", container, err)
	}
	g := &Guard{p: &passage{Runner: r, journal: &journal{head: header{Old: b.ID, NetNS: true}}}}
	if err := g.p.beside(b.Container); err != nil {
		g.p.letGo()
		return nil, fmt.Errorf("stand beside %s: %w", container, err)
	}
	g.p.head.Plan.Ports = g.p.owner.Ports()
	// As long as we have its sockets they do not close with it.
	owner := g.p.owner
	g.p.owner = nil
	if err := owner.Close(); err != nil {
		return nil, errors.Join(fmt.Errorf("stand beside %s: %w", container, err), g.Close())
	}
	return g, nil
}

// Hand over what waits: start a container, and give it the connections when it is ready. It says for how long they waited from
// now on, and how many did. The guard is closed then, whatever came of it.
func (g *Guard) Hand(ctx context.Context, to string, patience time.Duration) (gap time.Duration, held int, err error) {
	p := g.p
	defer p.letGo()
	p.head.Plan.Patience, p.deadline, p.shut = patience, time.Now().Add(patience), time.Now()
	p.successor = to
	if p.shared, err = traffic.Share(p.ns, p.head.Plan.Ports); err != nil {
		return 0, 0, err
	}
	for _, do := range []func(context.Context) (string, error){p.hold, p.start, p.listen, p.ready, p.turn, p.release} {
		if _, err := do(ctx); err != nil {
			return 0, 0, err
		}
	}
	return p.result.Gap, p.result.Held, nil
}

// Close steps aside. Whoever waits is reset, unless somebody listens.
func (g *Guard) Close() error {
	if g.p.line == nil {
		return nil
	}
	err := g.p.stepAside(context.Background())
	g.p.letGo()
	return err
}
