// SPDX-License-Identifier: Apache-2.0

package renew

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/engine/process"
	"github.com/whittle-sec/whittle/internal/gate"
	"github.com/whittle-sec/whittle/internal/traffic"
)

// What each step does. The note of a step is for who watches.

const (
	// settle is for how long it is waited, before a predecessor is stopped, for what it has not accepted yet and for the
	// connections that it serves. What is left in its queue then goes to the next socket.
	settle = 200 * time.Millisecond
	// lull is for how long, if none of these ends: connections that are kept open end with the predecessor.
	lull = 30 * time.Millisecond
	// releaseTime is for how long sockets of the other side are waited for, which close with its last process.
	releaseTime = 5 * time.Second
	// glance is the least time between two looks at something that changes.
	glance = 3 * time.Millisecond
)

func (p *passage) create(ctx context.Context) (string, error) {
	return p.head.New, p.make(ctx, addressing(p.head.Request.Changes.Address, p.head.Plan.Strategy))
}

func (p *passage) make(ctx context.Context, address engine.Addressing) error {
	c := p.head.Request.Changes
	c.Name, c.Address = p.head.New, address
	var id string
	err := p.askFor(ctx, makeTime, func(ctx context.Context) (err error) {
		id, err = p.Engine.Make(ctx, p.head.Old, c)
		return err
	})
	if err != nil {
		return err
	}
	p.successor, p.result.Successor = id, id
	return p.add(entry{Made: id})
}

func (p *passage) initialise(ctx context.Context) (string, error) {
	i, ok := p.Engine.(engine.Initializer)
	if !ok {
		return "", errors.New("the engine cannot")
	}
	return "", p.ask(ctx, func(ctx context.Context) error { return i.Init(ctx, p.successor) })
}

// form a line, in which new connections still go to the predecessor.
func (p *passage) form(ctx context.Context) (string, error) {
	return "", p.stand(ctx, p.head.Old)
}

// stand beside the sockets of a container that runs.
func (p *passage) stand(ctx context.Context, id string) error {
	c, err := p.Engine.Inspect(ctx, id)
	if err != nil {
		return err
	}
	if p.ns, err = traffic.OpenNetNS(c.PID); err != nil {
		return err
	}
	if p.owner, _, err = traffic.ListenersOf(processes(c), p.ns); err != nil {
		return err
	}
	for _, l := range p.owner.Ports() {
		if !p.head.Request.needs(l, p.head.NetNS) {
			if err := p.owner.Forget(l); err != nil {
				return err
			}
		}
	}
	if p.line, err = traffic.Form(p.ns, p.owner); err != nil {
		return err
	}
	p.shared, err = traffic.Share(p.ns, p.owner.Ports())
	return err
}

func (p *passage) hold(ctx context.Context) (string, error) {
	p.shut = time.Now()
	return "", p.line.Hold()
}

// shutGate for the published ports, and for who comes to the container's own addresses.
func (p *passage) shutGate(ctx context.Context) (string, error) {
	b, err := p.Engine.Blueprint(ctx, p.head.Old)
	if err != nil {
		return "", err
	}
	var to []gate.Destination
	for _, port := range b.Ports {
		if port.Protocol == "tcp" {
			to = append(to, gate.Destination{Addr: port.HostIP, Port: port.HostPort})
		}
	}
	for _, a := range b.Addresses {
		for _, l := range p.head.Plan.Ports {
			to = append(to, gate.Destination{Addr: a, Port: l.Port()})
		}
	}
	if len(to) == 0 {
		return "nothing arrives from the host", nil
	}
	p.shut = time.Now()
	// The gate outlives the step's context: it is opened by turn, or by letGo.
	p.gate, err = gate.Shut(context.WithoutCancel(ctx), to)
	return fmt.Sprintf("%d destinations", len(to)), err
}

// stop the predecessor. Our descriptors of its sockets go first: as long as there is one, what waits in a socket stays in it.
func (p *passage) stop(ctx context.Context) (string, error) {
	if p.shut.IsZero() && p.line == nil {
		p.shut = time.Now() // nothing waits, but nothing is served either
	}
	if p.owner != nil {
		p.settle(ctx)
		err := p.owner.Close()
		p.owner = nil
		if err != nil {
			return "", err
		}
	}
	if p.head.Plan.Strategy == Hold {
		return p.haltHolding(ctx)
	}
	return "", p.halt(ctx, p.head.Old, p.head.Plan.Drain)
}

// errFell: the successor ended by itself as soon as it served.
var errFell = errors.New("the successor ended as soon as it served")

// drain the predecessor. One that stays, stopped, is gone back to if it is needed meanwhile: who connects waits in the line.
func (p *passage) drain(ctx context.Context) (string, error) {
	next, err := process.Open(p.serving.PID)
	if err == nil {
		defer next.Close()
	}
	note, stopped := p.stop(ctx)
	if stopped == nil && p.head.Request.Retire == RetireKeep && (err != nil || next.Alive() != nil) {
		return note, fmt.Errorf("%w: %s", errFell, p.epitaph(ctx, p.successor))
	}
	return note, stopped
}

// haltHolding returns when the predecessor has no process any more: what its engine does after that, in a network that stays,
// need not lengthen the gap. It is waited for in halted.
func (p *passage) haltHolding(ctx context.Context) (string, error) {
	group := "" // of its own, or else the engine says when it is over
	if p.old != nil {
		if id, err := p.old.CgroupID(); err == nil && id > 1 {
			group = groupOf(p.old.PID)
		}
	}
	// Once it has ended there is nothing to give up any more.
	asked, giveUp := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan error, 1)
	go func() {
		defer giveUp()
		done <- p.halt(asked, p.head.Old, p.head.Plan.Drain)
	}()
	for {
		select {
		case err := <-done:
			return "", err
		case <-ctx.Done():
			giveUp()
			return "", <-done
		case <-time.After(glance):
		}
		if group != "" && !p.oldAlive() && len(inGroup(group)) == 0 {
			p.halting = done
			return "its engine cleans up yet", nil
		}
	}
}

// halted waits until the predecessor's engine is done with it.
func (p *passage) halted() error {
	if p.halting == nil {
		return nil
	}
	err := <-p.halting
	p.halting = nil
	return err
}

// settle gives the predecessor time to accept what is in its queues, and, where new connections wait elsewhere, to end those
// that it has.
func (p *passage) settle(ctx context.Context) {
	least, since := math.MaxInt, time.Now()
	for end := since.Add(settle); time.Now().Before(end); pause(ctx, glance) {
		n, err := p.busy()
		if err != nil || n == 0 {
			return
		}
		if n < least {
			least, since = n, time.Now()
		} else if time.Since(since) > lull {
			return
		}
	}
}

// busy is how many connections the predecessor has to see to.
func (p *passage) busy() (int, error) {
	n, err := traffic.Waiting(p.owner)
	if err != nil || p.head.Plan.Strategy != Hold {
		return n, err
	}
	served, err := traffic.Accepted(p.ns, p.owner.Ports())
	return n + served, err
}

func (p *passage) start(ctx context.Context) (string, error) {
	p.deadline = time.Now().Add(p.head.Plan.Patience)
	err := p.launch(ctx, p.successor)
	if q := p.head.Request; errors.Is(err, engine.ErrAddressTaken) && q.Successor == "" && q.Changes.Address == engine.AddressAsMade {
		return "another container has its address", p.startElsewhere(ctx)
	}
	return "", err
}

// turn gives the successor what waits, and what comes.
func (p *passage) turn(ctx context.Context) (string, error) {
	switch {
	case p.line != nil:
		held, err := p.line.Held()
		if err != nil {
			return "", err
		}
		p.result.Held = held
		return "", p.line.Turn() // the gap ends when what waits is handed over: see release
	case p.gate != nil:
		held, dropped := p.gate.Waited()
		err := p.gate.Open()
		p.gate = nil
		p.result.Held = int(min(held, 1<<30))
		if err != nil {
			return "", err
		}
		p.gapEnds()
		if dropped > 0 {
			return fmt.Sprintf("%d connections waited; %d packets were dropped, and are sent again by their senders", held, dropped), nil
		}
		return fmt.Sprintf("%d connections waited", held), nil
	}
	p.gapEnds()
	return "", nil
}

func (p *passage) release(ctx context.Context) (string, error) {
	line, shared := p.line, p.shared
	p.line, p.shared = nil, nil
	ctx, cancel := context.WithTimeout(ctx, releaseTime)
	defer cancel()
	var err error
	if shared != nil {
		err = shared.Close()
	}
	if line == nil {
		return "", err
	}
	failed := line.Release(ctx)
	p.gapEnds()
	if failed != nil {
		return "", errors.Join(failed, line.Close(), err)
	}
	return "", err
}

// away with the predecessor's name. One that its engine removed when it ended has none.
func (p *passage) away(ctx context.Context) (string, error) {
	if err := p.halted(); err != nil {
		return "", err
	}
	name := newName(p.head.Plan.Container, "old")
	err := p.ask(ctx, func(ctx context.Context) error { return p.Engine.Rename(ctx, p.head.Old, name) })
	if errors.Is(err, engine.ErrUnknownContainer) {
		return "it is gone", nil
	}
	return name, err
}

func (p *passage) rename(ctx context.Context) (string, error) {
	name := p.head.Plan.Container
	return name, p.ask(ctx, func(ctx context.Context) error { return p.Engine.Rename(ctx, p.successor, name) })
}

func (p *passage) removeOld(ctx context.Context) (string, error) {
	if err := p.halted(); err != nil {
		return "", err
	}
	err := p.ask(ctx, func(ctx context.Context) error { return p.Engine.Remove(ctx, p.head.Old) })
	if err != nil {
		err = fmt.Errorf("the predecessor is there still, and stopped: %w", err)
	}
	return "", err
}

// later tells whether what an engine did not do may be tried again. What it refuses, somebody has to see to.
func later(err error) bool {
	return errors.Is(err, engine.ErrUnavailable) || errors.Is(err, engine.ErrOutcomeUnknown)
}

// pause, or less if ctx ends.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
