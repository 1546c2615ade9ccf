// SPDX-License-Identifier: Apache-2.0

// Package gate keeps new connections waiting at the host while the container they are for is away: the first packet
// of each (SYN) is held in a packet queue of the kernel before connection tracking and address translation see it, and
// goes on when the gate opens, through whatever translation there is by then. It knows no container and no engine,
// and never touches a packet of an established connection, another destination, or a rule that is not its own.
package gate

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Gate is shut until Open.
type Gate struct {
	ns    *netns
	fence fence
	rules ruleset
	queue *queue // nil where packets are dropped
	stop  func() bool

	mu            sync.Mutex
	open          bool
	held, dropped uint64 // as they were when it opened
}

const (
	shutWithin = 15 * time.Second
	openWithin = 15 * time.Second
	// dropUntil bounds for how long dropping rules are in force when nobody is left to remove them. Queueing ones need
	// no such bound: a queue that nobody reads lets packets pass.
	dropUntil = 10 * time.Minute
)

// Shut makes new TCP connections to these destinations wait, in the network namespace of the caller's thread, until
// the gate is opened or ctx ends.
//
// What it cannot hold: connections between two containers of one bridge where bridge-nf-call-iptables is 0, and
// whatever has no route or no neighbour to be sent to before it is a packet (an address of a bridge that goes with
// its last container). What waits is dropped by the kernel, and asked for again by its client, when the interface
// that it came from goes down or another program removes an nftables base chain.
func Shut(ctx context.Context, to []Destination) (*Gate, error) {
	return shut(ctx, to, attempts())
}

// shut with the first attempt that works.
func shut(ctx context.Context, to []Destination, attempts []attempt) (*Gate, error) {
	to, err := normal(to)
	if err != nil {
		return nil, fmt.Errorf("shutting the gate: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("shutting the gate: %w", err)
	}
	ns, err := currentNetNS()
	if err != nil {
		return nil, fmt.Errorf("shutting the gate: %w", err)
	}
	bounded, cancel := context.WithTimeout(ctx, shutWithin)
	defer cancel()
	var g *Gate
	err = ns.do(func() error {
		g, err = firstThatWorks(bounded, ns, to, attempts)
		return err
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("shutting the gate: %w", err), ns.Close())
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.stop = context.AfterFunc(ctx, func() { g.Open() }) // an error is given again to whoever calls Open
	return g, nil
}

func firstThatWorks(ctx context.Context, ns *netns, to []Destination, attempts []attempt) (*Gate, error) {
	tag, err := newTag()
	if err != nil {
		return nil, err
	}
	failed := []error{errNoTool}
	for _, a := range attempts {
		g := &Gate{ns: ns, fence: a.fence, rules: ruleset{to: to, tag: tag, until: time.Now().Add(dropUntil)}}
		if a.queues {
			if g.queue, err = openQueue(to); err != nil {
				failed = append(failed, err)
				continue
			}
			g.rules.queue, g.rules.passed = &g.queue.number, g.queue.passed
		}
		if err = put(ctx, a.fence, g.rules); err == nil {
			return g, nil
		}
		failed = append(failed, err)
		if g.queue != nil {
			failed = append(failed, g.queue.Close())
		}
	}
	if len(failed) > 1 {
		failed = failed[1:]
	}
	return nil, errors.Join(failed...)
}

// put all the rules, or none.
func put(ctx context.Context, f fence, r ruleset) error {
	unlock, err := lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if err := f.put(ctx, r); err != nil {
		after, cancel := context.WithTimeout(context.WithoutCancel(ctx), openWithin)
		defer cancel()
		return errors.Join(err, f.remove(after, r.tag.is), f.tidy(after))
	}
	return nil
}

// Open lets what waits go on, at once, and then removes the rules. It may be called again: nothing happens, or what
// failed is tried again. On an error, too, everything goes on.
func (g *Gate) Open() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.open {
		return nil
	}
	g.stop()
	if g.queue != nil {
		g.queue.release()
	}
	ctx, cancel := context.WithTimeout(context.Background(), openWithin)
	defer cancel()
	if err := g.ns.do(func() error { return g.lift(ctx) }); err != nil {
		return fmt.Errorf("opening the gate: %w", err)
	}
	g.open = true
	var err error
	if g.queue != nil {
		err = g.queue.Close()
		g.held, g.dropped = g.queue.counts()
	}
	if err = errors.Join(err, g.ns.Close()); err != nil {
		return fmt.Errorf("opening the gate: %w", err)
	}
	return nil
}

// lift the rules. The kernel takes its time for that (grace periods), which is why nobody waits for it.
func (g *Gate) lift(ctx context.Context) error {
	unlock, err := lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if g.queue == nil {
		g.dropped = countDropped(ctx, g.fence, g.rules.tag)
	}
	if err := g.fence.lift(ctx, g.rules); err != nil {
		return err
	}
	return g.fence.tidy(ctx)
}

// Waited tells how many connections were held, and how many packets were dropped: because too many waited, or, where
// there is no queue, all of them. Their clients send them again.
func (g *Gate) Waited() (held, dropped uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.open {
		return g.held, g.dropped
	}
	if g.queue != nil {
		return g.queue.counts()
	}
	ctx, cancel := context.WithTimeout(context.Background(), openWithin)
	defer cancel()
	_ = g.ns.do(func() error { // a count that cannot be had is 0
		dropped = countDropped(ctx, g.fence, g.rules.tag)
		return nil
	})
	return 0, dropped
}

// Clean removes what gates of processes that are dead left behind in the caller's network namespace. What a process
// of another pid namespace made is left alone: whether that one lives cannot be told.
func Clean(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, openWithin)
	defer cancel()
	ns, err := currentNetNS()
	if err != nil {
		return fmt.Errorf("cleaning up after dead gates: %w", err)
	}
	defer ns.Close()
	err = ns.do(func() error {
		unlock, err := lock(ctx)
		if err != nil {
			return err
		}
		defer unlock()
		return removeDead(ctx, fences())
	})
	if err != nil {
		return fmt.Errorf("cleaning up after dead gates: %w", err)
	}
	return nil
}

// removeDead does not mind a program that cannot list its rules when another can: a kernel may lack what it speaks to.
func removeDead(ctx context.Context, fences []fence) error {
	var failed, unknown []error
	for _, f := range fences {
		err := f.remove(ctx, tag.dead)
		if err == nil {
			err = f.tidy(ctx)
		}
		if errors.Is(err, errListing) {
			unknown = append(unknown, err)
		} else if err != nil {
			failed = append(failed, err)
		}
	}
	if len(unknown) == len(fences) {
		failed = append(failed, unknown...)
	}
	return errors.Join(failed...)
}
