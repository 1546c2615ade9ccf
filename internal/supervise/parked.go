// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

const (
	// maxParked calls of one container wait for Settle at once. What would be one more is refused. The kernel walks over
	// all that wait at a listener each time it is asked for the next one, so they must not be many.
	maxParked = 256
	// pruned parked calls are looked at when one more is parked, and forgotten where the caller is gone. More than one,
	// so that those whose callers a signal interrupts again and again do not fill the room.
	pruned = 4
)

// ErrGone is returned, wrapped, for a call that nobody waits with any more: its caller died or was interrupted, it was
// answered before, its container was removed, or Run has ended.
var ErrGone = errors.New("the held call is gone")

// ticket names a held call of a container that was received and not answered. It is good for as long as the queue has
// it, which forgets the tickets of a listener before it closes that: a number that is used again is never mistaken.
type ticket struct {
	listener int
	id       uint64
}

func (t ticket) waits() bool { return t.listener > 0 && idValid(t.listener, t.id) }

// Settle answers a call whose judge said Later, once: of several answers only the first counts, and the others get
// ErrGone. Any goroutine may call it, also before the judge has returned; what that returns is of no account then. A
// Verdict that says Later refuses.
func (s *Supervisor) Settle(h Held, v Verdict) error {
	q := s.queue(h.Container)
	if q == nil {
		return fmt.Errorf("settle: %w: its container was removed", ErrGone)
	}
	q.mu.Lock() // until it is answered: the listener stays open as long
	defer q.mu.Unlock()
	t := h.ticket()
	if !s.unpark(q, t) && !q.release(t) {
		return fmt.Errorf("settle: %w: it was answered, or never given away", ErrGone)
	}
	switch errno := s.answer(s.settler(), q, t, v); errno {
	case 0:
		return nil
	case unix.ENOENT:
		return fmt.Errorf("settle: %w: its caller died or was interrupted", ErrGone)
	default:
		return fmt.Errorf("settle a held call: %w", errno)
	}
}

// Waits reports whether the caller of a call still waits which its judge has at this moment, or which is parked. As with
// Held.Valid, what /proc said about TID is about the caller only when Waits is true after it was read.
func (s *Supervisor) Waits(h Held) bool {
	q := s.queue(h.Container)
	if q == nil {
		return false
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	t := h.ticket()
	_, parked := q.parked[t]
	return (parked || q.hand == t) && t.waits()
}

// Parked is how many calls of a container wait for Settle. Some of their callers may be gone.
func (s *Supervisor) Parked(c Container) int {
	q := s.queue(c)
	if q == nil {
		return 0
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.parked)
}

// now is what becomes of a parked call that nobody settles.
func (v Verdict) now() Verdict { return Verdict{Allow: v.Allow, Errno: v.Errno} }

func (h Held) ticket() ticket { return ticket{h.listener, h.ID} }

// park the call in hand: false when it has to be refused instead. One that was settled meanwhile needs nothing more.
func (s *Supervisor) park(q *queue, t ticket, v Verdict) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.release(t) {
		return true
	}
	s.prune(q)
	if q.removed.Load() || len(q.parked) >= maxParked {
		return false
	}
	if q.parked == nil {
		q.parked = make(map[ticket]Verdict)
	}
	q.parked[t] = v.now()
	s.count.parked.Add(1)
	return true
}

// unpark a call that is about to be answered. q.mu is held here and below.
func (s *Supervisor) unpark(q *queue, t ticket) bool {
	if _, ok := q.parked[t]; !ok {
		return false
	}
	delete(q.parked, t)
	s.count.parked.Add(-1) // before its answer is counted: see counts.read
	return true
}

// prune a few of the parked calls, whichever come: those whose callers are gone.
func (s *Supervisor) prune(q *queue) {
	left := pruned
	for t := range q.parked {
		if left--; left < 0 {
			return
		}
		if !t.waits() {
			s.unpark(q, t)
			s.count.gone.Add(1)
		}
	}
}

// refuseParked calls of one listener, or of all with -1, before it is closed or left without a reader: a duplicate that
// somebody holds keeps their callers waiting, and nobody would answer them.
func (s *Supervisor) refuseParked(q *queue, listener int) {
	if len(q.parked) == 0 {
		return
	}
	mail := s.settler()
	for t, v := range q.parked {
		if listener < 0 || t.listener == listener {
			s.unpark(q, t)
			s.answer(mail, q, t, v)
		}
	}
}

// settler has room for answers alone: workers own the other mailboxes.
func (s *Supervisor) settler() *mailbox { return &mailbox{resp: make([]uint64, s.answerWords)} }

// refuseAllParked when Run ends: nobody else can answer what this supervisor received.
func (s *Supervisor) refuseAllParked() {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, q := range s.queues {
		q.mu.Lock()
		s.refuseParked(q, -1)
		q.mu.Unlock()
	}
}
