// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"errors"
	"fmt"
	"math/bits"
	"runtime"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/syscalls"
)

// worker is one thread that answers held calls. Its memory is all made at the start: a held call allocates nothing.
type worker struct {
	*Supervisor
	mail  *mailbox
	ready [share]unix.EpollEvent
}

func newWorker(s *Supervisor) (*worker, error) {
	mail, err := newMailbox()
	if err != nil {
		return nil, err
	}
	return &worker{Supervisor: s, mail: mail}, nil
}

// run serves one container after the other, as the root reports them. One event at a time: a second one taken along
// would wait for this worker while another is free.
func (w *worker) run() error {
	runtime.LockOSThread() // the kernel runs the caller where its answerer runs; moving between threads undoes that
	defer runtime.UnlockOSThread()
	var event [1]unix.EpollEvent
	for !w.ending.Load() {
		n, err := unix.EpollWait(w.root, event[:], -1)
		if errors.Is(err, unix.EINTR) || (err == nil && n == 0) {
			continue
		}
		if err != nil {
			return fmt.Errorf("wait for held calls: %w", err)
		}
		c := eventContainer(event[0])
		if c == NoContainer {
			return nil
		}
		if q := w.queue(c); q != nil && q.begin() {
			if err := w.turn(q); err != nil {
				return err
			}
		}
	}
	return nil
}

// turn answers up to one share of a container's calls, one from each ready listener, then again.
func (w *worker) turn(q *queue) (err error) {
	defer func() { err = q.end(w.root) }()
	for left := share; left > 0; {
		// Raw, for it does not sleep: giving up the processor and getting it back would cost more than the call.
		n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(q.epoll), uintptr(unsafe.Pointer(&w.ready[0])), uintptr(left), 0, 0, 0)
		if errno != 0 || n == 0 {
			return nil // EINTR: the queue is armed again, and reported again
		}
		for _, event := range w.ready[:n] {
			if w.ending.Load() || q.removed.Load() {
				return nil
			}
			w.serve(q, event)
		}
		left -= int(n)
	}
	return nil
}

// serve one call of one listener. A listener that hung up may have calls all the same: they come first.
func (w *worker) serve(q *queue, event unix.EpollEvent) {
	listener := int(event.Fd)
	if event.Events&unix.EPOLLIN == 0 {
		if event.Events&unix.EPOLLHUP != 0 {
			w.hangUp(q, listener)
		}
		return // EPOLLERR alone: a signal interrupted the poll (seccomp_notify_poll)
	}
	n, errno := w.mail.receive(listener)
	switch errno {
	case 0:
		w.count.received.Add(1)
		w.decide(q, listener, n)
	case unix.ENOENT, unix.EINTR: // the caller died first, or a signal came: poll again
	default:
		w.count.lost.Add(1)
		w.log.Error("a listener cannot be read, its calls fail from now on", "container", q.container, "err", errno)
		w.hangUp(q, listener)
	}
}

func (w *worker) hangUp(q *queue, listener int) {
	q.mu.Lock()
	w.refuseParked(q, listener)
	q.mu.Unlock()
	if q.drop(listener) && !q.removed.Load() {
		w.idle.put(q.container)
	}
}

// decide asks the judge about a received call, and answers or parks it whatever the judge does.
func (w *worker) decide(q *queue, listener int, n *notification) {
	id := n.id // the mailbox may not be read after the judge: judges are given copies
	call, known := syscalls.FromAudit(n.data.arch, uint32(n.data.nr))
	if !known {
		// As the filter answers numbers that are newer than its table: libraries fall back on ENOSYS.
		w.count.unknown.Add(1)
		w.answer(w.mail, q, ticket{listener, id}, Verdict{Errno: int32(unix.ENOSYS)})
		return
	}
	q.give(ticket{listener, id})
	verdict := Verdict{}
	defer func() { w.conclude(q, ticket{listener, id}, verdict) }() // also when the judge ends its goroutine: no recover sees that
	verdict, panicked := q.ask(Held{
		Container: q.container, ID: id, TID: int(n.pid), Call: call, Args: n.data.args, IP: n.data.ip, listener: listener,
	})
	if panicked != nil {
		if times := w.count.panics.Add(1); bits.OnesCount64(times) == 1 { // 1, 2, 4 …: whoever makes it panic may do so for ever
			w.log.Error("a judge panicked, the call is refused", "container", q.container, "syscall", call, "times", times, "err", panicked)
		}
	}
}

// conclude what the judge had in hand, unless somebody has settled it meanwhile.
func (w *worker) conclude(q *queue, t ticket, v Verdict) {
	if v.Later {
		if w.park(q, t, v) {
			return
		}
		v = v.now()
	} else if !q.take(t) {
		return
	}
	w.answer(w.mail, q, t, v)
}

// answer one call, and count what the kernel made of the answer. What is not answered now is refused.
func (s *Supervisor) answer(m *mailbox, q *queue, t ticket, v Verdict) unix.Errno {
	v.Allow = v.Allow && !v.Later
	errno := m.send(t.listener, t.id, v)
	took := errno
	if errno != 0 && errno != unix.ENOENT && v.Allow {
		v = Verdict{} // whatever it has against letting the call run, the caller must not wait for ever
		took = m.send(t.listener, t.id, v)
	}
	switch {
	case took == unix.ENOENT:
		s.count.gone.Add(1)
	case took != 0:
		if times := s.count.errors.Add(1); bits.OnesCount64(times) == 1 {
			s.log.Error("a held call could not be answered", "container", q.container, "times", times, "err", took)
		}
	case v.Allow:
		s.count.allowed.Add(1)
	default:
		s.count.refused.Add(1)
	}
	return errno
}

// counts are the counters that all workers share.
type counts struct {
	received, allowed, refused, gone, errors, panics, unknown, lost atomic.Uint64
	parked                                                          atomic.Int64
}

// read the counters. What became of a call is counted after its receipt and after it was parked, so it is read before.
func (c *counts) read() (out Counters) {
	out.Allowed, out.Refused, out.Gone, out.Errors = c.allowed.Load(), c.refused.Load(), c.gone.Load(), c.errors.Load()
	out.Panics, out.Unknown, out.Lost = c.panics.Load(), c.unknown.Load(), c.lost.Load()
	out.Parked = uint64(max(c.parked.Load(), 0))
	out.Received = c.received.Load()
	return out
}
