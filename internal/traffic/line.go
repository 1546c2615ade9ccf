// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// ErrListens is returned, wrapped, when steering cannot end because the other side listens still. The program stays
// attached then and goes on as it was told, until the other side's sockets close.
var ErrListens = errors.New("the other side listens still")

// Line is where new connections of a service wait or go. When the process that has it is killed, the kernel goes on
// steering as it was told last; what waited in our sockets goes to those that listen, and if nobody does it is reset.
type Line struct {
	ns      *NetNS
	owner   *Listeners
	release func() error // the namespace's setting, where it was needed

	mu     sync.Mutex
	next   *Listeners
	groups []*group
	closed bool
}

// Form takes over the steering of the owner's sockets; new connections still go to the owner. The Listeners stay the
// caller's. They are to be closed before the owner is stopped, so that its sockets close with it; until then the owner's
// socket options can be put back as they were.
func Form(ns *NetNS, from *Listeners) (*Line, error) {
	own, err := ns.dup()
	if err != nil {
		return nil, fmt.Errorf("form a line: %w", err)
	}
	l := &Line{ns: own, owner: from}
	if l.groups, err = groupsOf(from); err == nil && len(l.groups) == 0 {
		err = errors.New("nobody listens")
	}
	if err == nil {
		err = l.form()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("form a line: %w", err), l.Close())
	}
	return l, nil
}

func (l *Line) form() error {
	// All of them first: a socket at one address may stand in the way of one at another.
	if err := l.owner.open(func(s *socket) error { return s.set(unix.SO_REUSEPORT, 1) }); err != nil {
		return err
	}
	if slices.ContainsFunc(l.groups, func(g *group) bool { return slices.ContainsFunc(g.sockets[owner], byOrder) }) {
		if err := l.migrate(); err != nil {
			return err
		}
	}
	return l.each((*group).form)
}

// migrate has the kernel move what waits in a socket that closes, where our program does not tell it.
func (l *Line) migrate() error {
	if l.release != nil {
		return nil
	}
	var err error
	l.release, err = l.ns.migration()
	return err
}

// each group, in the namespace.
func (l *Line) each(f func(*group) error) error {
	return l.ns.Do(func() error {
		for _, g := range l.groups {
			if err := f(g); err != nil {
				return err
			}
		}
		return nil
	})
}

// aim new connections at a side.
func (l *Line) aim(at side, doing string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	err := error(nil)
	switch {
	case l.closed:
		err = errors.New("the line is closed")
	case at == successor && l.next == nil:
		err = errors.New("no successor was admitted")
	default:
		err = l.each(func(g *group) error { return g.aim(at) })
		settle()
	}
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	return nil
}

// Hold makes new connections wait in our sockets, and what waits in a socket of the owner's that closes.
func (l *Line) Hold() error { return l.aim(ours, "hold connections") }

// Turn makes new connections go to the admitted. What waits in ours goes on waiting until Release.
func (l *Line) Turn() error { return l.aim(successor, "turn connections to the successor") }

// Return makes new connections go to the owner again.
func (l *Line) Return() error { return l.aim(owner, "return connections to the owner") }

// Held is the number of connections that wait in our sockets.
func (l *Line) Held() (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, g := range l.groups {
		if g.hold < 0 {
			continue
		}
		held, err := queued(g.hold)
		if err != nil {
			return n, err
		}
		n += held
	}
	return n, nil
}

// Admit the successor's sockets, which are to be at every address of the owner's: knocks go to them, nothing else yet.
// Who is admitted later takes the place of the first. The Listeners stay the caller's, and open until Release.
func (l *Line) Admit(next *Listeners) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return errors.New("admit a successor: the line is closed")
	}
	at := map[*group][]*socket{}
	if err := next.open(func(s *socket) error {
		for _, g := range l.groups {
			if g.address == s.address {
				at[g] = append(at[g], s)
			}
		}
		return nil
	}); err != nil {
		return fmt.Errorf("admit a successor: %w", err)
	}
	var missing []string
	for _, g := range l.groups {
		if len(at[g]) == 0 {
			missing = append(missing, g.shown().String())
		}
		if slices.ContainsFunc(at[g], byOrder) {
			if err := l.migrate(); err != nil {
				return fmt.Errorf("admit a successor: %w", err)
			}
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("admit a successor: it does not listen at %s", strings.Join(missing, ", "))
	}
	if err := l.each(func(g *group) error { return g.admit(at[g]) }); err != nil {
		return fmt.Errorf("admit a successor: %w", err)
	}
	l.next = next
	return nil
}

// Knock is a connection that only the admitted successor gets, at an address of Ports.
func (l *Line) Knock(ctx context.Context, port netip.AddrPort) (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := slices.IndexFunc(l.groups, func(g *group) bool { return g.shown() == port })
	if l.closed || l.next == nil || at < 0 {
		return nil, fmt.Errorf("knock at %s: no successor was admitted there", port)
	}
	var conn net.Conn
	err := l.ns.Do(func() error {
		var err error
		conn, err = l.groups[at].dial(ctx)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("knock at %s: %w", port, err)
	}
	return conn, nil
}

// Release hands what waits in our sockets to those that new connections go to, wakes them, and ends the steering. After
// a Turn it closes the owner's Listeners. It waits until the other side listens no more, or ctx is done: ErrListens.
func (l *Line) Release(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return errors.New("release a line: it is closed")
	}
	if slices.ContainsFunc(l.groups, func(g *group) bool { return g.aimed == ours }) {
		return errors.New("release a line: connections are held, and nobody was chosen to get them")
	}
	if err := l.end(ctx); err != nil {
		return fmt.Errorf("release a line: %w", err)
	}
	return nil
}

// Close abandons the line: as Release, but to the owner, and without waiting: the successor is to be stopped before.
// After a Release it does nothing.
func (l *Line) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	failed := l.each(func(g *group) error {
		if g.slots == nil || g.aimed == owner {
			return nil
		}
		return g.aim(owner)
	})
	settle()
	now, cancel := context.WithCancel(context.Background())
	cancel()
	if err := errors.Join(failed, l.end(now)); err != nil {
		return fmt.Errorf("close a line: %w", err)
	}
	return nil
}

// end whatever is ours, and what is the kernel's when those who are aimed at are alone.
func (l *Line) end(ctx context.Context) error {
	l.closed = true
	var failed error
	turned := slices.ContainsFunc(l.groups, func(g *group) bool { return g.aimed == successor })
	failed = l.ns.Do(func() error {
		var failed error
		for _, g := range l.groups {
			failed = errors.Join(failed, g.drop())
		}
		return failed
	})
	if turned {
		failed = errors.Join(failed, l.owner.Close())
	}
	err := l.alone(ctx)
	if err == nil {
		err = l.ns.Do(func() error {
			var failed error
			for _, g := range l.groups {
				failed = errors.Join(failed, g.leave())
			}
			return failed
		})
	}
	failed = errors.Join(failed, err)
	for _, g := range l.groups {
		failed = errors.Join(failed, g.close())
	}
	if l.release != nil {
		failed = errors.Join(failed, l.release())
	}
	return errors.Join(failed, l.ns.Close())
}

// alone waits until nobody listens beside those who are aimed at.
func (l *Line) alone(ctx context.Context) error {
	const pause = 5 * time.Millisecond
	for {
		n := 0
		err := l.each(func(g *group) error {
			others, err := g.others()
			n += others
			return err
		})
		if err != nil || n == 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return ErrListens
		case <-time.After(pause):
		}
	}
}
