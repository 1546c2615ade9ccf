// SPDX-License-Identifier: Apache-2.0

package renew

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/engine/process"
	"github.com/whittle-sec/whittle/internal/traffic"
)

// listen waits until the successor has all ports of the predecessor.
func (p *passage) listen(ctx context.Context) (string, error) {
	next, err := p.awaitListeners(ctx, p.successor)
	if err != nil {
		return "", err
	}
	p.next = next
	if p.line == nil {
		return "", nil
	}
	return "", p.line.Admit(next)
}

// awaitListeners of a container that was started, until p.deadline.
func (p *passage) awaitListeners(ctx context.Context, id string) (*traffic.Listeners, error) {
	c, alive, err := p.watch(ctx, id)
	if err != nil {
		return nil, err
	}
	defer alive.Close()
	ns := p.ns
	if ns == nil || !p.head.NetNS {
		if ns, err = traffic.OpenNetNS(c.PID); err != nil {
			return nil, err
		}
		if p.ns != nil {
			p.ns.Close()
		}
		p.ns = ns
	}
	for {
		began := time.Now()
		l, _, err := traffic.ListenersOf(processes(c), ns)
		if err != nil && alive.Alive() == nil {
			return nil, err
		}
		var missing []netip.AddrPort
		if err == nil {
			if missing = p.missing(l.Ports()); len(missing) == 0 {
				return l, nil
			}
			l.Close()
		}
		if alive.Alive() != nil {
			return nil, errors.New(p.epitaph(ctx, id))
		}
		if time.Now().After(p.deadline) || ctx.Err() != nil {
			return nil, fmt.Errorf("after %v it does not listen on %v%s", p.head.Plan.Patience, missing, p.lastWords(ctx, id))
		}
		pause(ctx, max(glance, 2*time.Since(began))) // a third of a processor at most
	}
}

// watch a container that was started: what it is, and whether its first process is there.
func (p *passage) watch(ctx context.Context, id string) (engine.Container, *process.Process, error) {
	c, err := p.inspect(ctx, id)
	if err != nil {
		return c, nil, err
	}
	if !c.State.Alive() || c.PID == 0 {
		return c, nil, errors.New(p.epitaph(ctx, id))
	}
	p.serving = c
	alive, err := process.Open(c.PID)
	if errors.Is(err, process.ErrGone) {
		return c, nil, errors.New(p.epitaph(ctx, id))
	}
	return c, alive, err
}

// missing ports of the predecessor's. In a network of its own a successor may have other addresses.
func (p *passage) missing(has []netip.AddrPort) (missing []netip.AddrPort) {
	for _, want := range p.head.Plan.Ports {
		there := slices.Contains(has, want) || !p.head.NetNS && slices.ContainsFunc(has, func(a netip.AddrPort) bool { return a.Port() == want.Port() })
		if !there {
			missing = append(missing, want)
		}
	}
	return missing
}

// ready waits until the successor can serve, as the plan says it is told.
func (p *passage) ready(ctx context.Context) (string, error) {
	return "", p.awaitReady(ctx, p.successor, p.head.Request.Ready)
}

// errLate marks that one that runs was not ready in time.
var errLate = errors.New("not ready")

func (p *passage) awaitReady(ctx context.Context, id string, how Ready) error {
	_, alive, err := p.watch(ctx, id)
	if err != nil {
		return err
	}
	defer alive.Close()
	within, cancel := context.WithDeadline(ctx, p.deadline)
	defer cancel()
	wait, last := glance, ""
	for {
		why, err := p.question(within, id, how)
		switch {
		case alive.Alive() != nil:
			return errors.New(p.epitaph(ctx, id))
		case err == nil && why == "":
			return nil
		case within.Err() != nil:
			if last == "" { // the first question took all the time; else what was said in good time is the better reason
				last = cmp.Or(why, "nothing was answered")
			}
			return fmt.Errorf("%w after %v: %s%s", errLate, p.head.Plan.Patience, last, p.lastWords(ctx, id))
		case err != nil:
			last = err.Error()
		default:
			last = why
		}
		pause(within, wait)
		wait = min(2*wait, 250*time.Millisecond)
	}
}

// question whether the successor can serve; why says why it cannot yet.
func (p *passage) question(ctx context.Context, id string, r Ready) (why string, err error) {
	switch {
	case r.Command != "":
		return runCommand(ctx, r.Command, id)
	case r.HTTP != "":
		return p.askHTTP(ctx, r)
	}
	if h, ok := p.Engine.(engine.HealthChecker); ok {
		has, healthy, err := h.Health(ctx, id)
		if err != nil {
			return "", err
		}
		if has && !healthy {
			return "its health check does not say that it is healthy", nil
		}
	}
	return p.knock(ctx)
}

// port that is asked.
func (p *passage) port(asked uint16) (netip.AddrPort, error) {
	all := p.head.Plan.Ports
	if len(all) == 0 {
		return netip.AddrPort{}, errors.New("it listens on no TCP port")
	}
	if asked == 0 {
		return slices.MinFunc(all, func(a, b netip.AddrPort) int { return int(a.Port()) - int(b.Port()) }), nil
	}
	i := slices.IndexFunc(all, func(a netip.AddrPort) bool { return a.Port() == asked })
	if i < 0 {
		return netip.AddrPort{}, fmt.Errorf("it does not listen on port %d", asked)
	}
	return all[i], nil
}

// dial the successor and nobody else.
func (p *passage) dial(ctx context.Context, port netip.AddrPort) (net.Conn, error) {
	if p.line != nil {
		return p.line.Knock(ctx, port)
	}
	port = p.moved(port)
	var conn net.Conn
	err := p.ns.Do(func() (err error) {
		conn, err = dialHere(ctx, port)
		return err
	})
	return conn, err
}

// moved is where the successor has a port of the predecessor's: in a network of its own it may have another address.
func (p *passage) moved(port netip.AddrPort) netip.AddrPort {
	if p.head.NetNS || p.next == nil {
		return port
	}
	has := p.next.Ports()
	if i := slices.IndexFunc(has, func(a netip.AddrPort) bool { return a.Port() == port.Port() }); i >= 0 && !slices.Contains(has, port) {
		return has[i]
	}
	return port
}

// dialHere, in the thread's network namespace: an address and no name, so that nothing is done in another thread.
func dialHere(ctx context.Context, port netip.AddrPort) (conn net.Conn, err error) {
	addresses := []netip.Addr{port.Addr()}
	if port.Addr().IsUnspecified() {
		addresses = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}
	}
	for _, a := range addresses {
		var d net.Dialer
		if conn, err = d.DialContext(ctx, "tcp", netip.AddrPortFrom(a, port.Port()).String()); err == nil {
			return conn, nil
		}
	}
	return nil, err
}
