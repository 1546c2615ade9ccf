// SPDX-License-Identifier: Apache-2.0

package renew

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/traffic"
)

// Guard stands beside the sockets of a container that may end at any moment by itself: who connects then waits, until another
// container has taken its place or the guard is closed. It has no journal: when its process is killed, the kernel undoes it, and
// connections go to whoever listens.
type Guard struct {
	p      *passage
	beside engine.Container
	owner  *traffic.Listeners // its sockets, which are closed here
}

// Stand beside a container that serves, at the ports that are needed (nil: at all), in a network that stays; else the error is an
// ErrRefused. It is quick: whatever is not needed for that is not looked at.
func (r *Runner) Stand(ctx context.Context, container string, ports []netip.AddrPort) (*Guard, error) {
	b, err := r.Engine.Blueprint(ctx, container)
	if err == nil && !b.NetworkKept {
		err = fmt.Errorf("%w: its network goes away with it", ErrRefused)
	}
	if err != nil {
		return nil, fmt.Errorf("stand beside %s: %w", container, err)
	}
	g := &Guard{beside: b.Container, p: &passage{Runner: r, journal: &journal{head: header{Old: b.ID, NetNS: true, Request: Request{Ports: ports}}}}}
	if err := g.p.stand(ctx, b.ID); err != nil {
		err = errors.Join(fmt.Errorf("stand beside %s: %w", container, err), g.p.stepAside(ctx))
		g.p.letGo()
		return nil, err
	}
	g.p.head.Plan.Ports = g.p.owner.Ports()
	// As long as we have its sockets they do not close with it.
	g.owner, g.p.owner = g.p.owner, nil
	if err := g.owner.Close(); err != nil {
		return nil, errors.Join(fmt.Errorf("stand beside %s: %w", container, err), g.Close())
	}
	return g, nil
}

// Hand over what waits to the container that start starts, when that is ready: within patience of its start. It says for how long
// connections waited from now on, and how many did. The guard is closed then, whatever came of it.
func (g *Guard) Hand(ctx context.Context, patience time.Duration, start func(context.Context) (container string, err error)) (gap time.Duration, held int, err error) {
	p := g.p
	defer func() {
		if err := g.Close(); err != nil {
			p.warn(err) // what it did not come to is the better reason
		}
	}()
	p.head.Plan.Patience = patience
	started := func(ctx context.Context) (_ string, err error) {
		p.successor, err = start(ctx)
		p.deadline = time.Now().Add(patience)
		return "", err
	}
	for _, do := range []func(context.Context) (string, error){p.hold, started, p.listen, p.ready, p.turn} {
		// There is nobody else to wait for: one that listens gets them, even if it does not say in time that it is ready.
		if _, err := do(ctx); err != nil && !(errors.Is(err, errLate) && ctx.Err() == nil) {
			return 0, 0, err
		}
	}
	// As in run: the successor has the connections, and what stays attached gives it those that come.
	if _, err := p.release(ctx); err != nil {
		p.warn(err)
	}
	return p.result.Gap, p.result.Held, nil
}

// Close steps aside. Whoever waits is reset, unless somebody listens.
func (g *Guard) Close() error {
	defer g.p.letGo()
	if g.p.line == nil {
		return nil
	}
	// Its sockets are to be as they were: what takes over from it afterwards is made like them.
	err := g.owner.Reopen(processes(g.beside), g.p.ns)
	return errors.Join(err, g.p.stepAside(context.Background()), g.owner.Close())
}
