// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// queue is one container's listeners, behind one epoll descriptor of its own. The held calls wait in the kernel; this
// only says where. The supervisor's root epoll reports it to one worker at a time.
type queue struct {
	container Container
	epoll     int
	judge     atomic.Pointer[Judge]
	removed   atomic.Bool

	mu        sync.Mutex
	listeners map[int]struct{}
	serving   bool               // a worker has it: nobody else closes its descriptors
	hand      ticket             // of the call that the judge has; the zero ticket when it has none
	parked    map[ticket]Verdict // calls that wait for Settle, and what each gets otherwise
}

func newQueue(c Container) (*queue, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("create a container's epoll: %w", err)
	}
	return &queue{container: c, epoll: fd, listeners: make(map[int]struct{})}, nil
}

func (q *queue) setJudge(j Judge) { q.judge.Store(&j) }

// ask the judge that is in force now. None, or one that panics, refuses.
func (q *queue) ask(h Held) (v Verdict, panicked any) {
	defer func() {
		if panicked = recover(); panicked != nil {
			v = Verdict{}
		}
	}()
	if j := q.judge.Load(); j != nil && *j != nil {
		return (*j)(h), nil
	}
	return Verdict{}, nil
}

// add a listener. Level-triggered: the kernel puts a listener that still has calls behind the others.
func (q *queue) add(listener int) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(listener)}
	if err := unix.EpollCtl(q.epoll, unix.EPOLL_CTL_ADD, listener, &event); err != nil {
		return fmt.Errorf("watch a listener: %w", err)
	}
	q.listeners[listener] = struct{}{}
	return nil
}

// drop closes a listener; its worker calls it. It reports whether that was the last one.
func (q *queue) drop(listener int) (last bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.shut(listener)
	return len(q.listeners) == 0
}

// shut leaves the epoll before it closes: a holder's duplicate would keep the listener in there.
func (q *queue) shut(listener int) {
	_ = unix.EpollCtl(q.epoll, unix.EPOLL_CTL_DEL, listener, nil)
	_ = unix.Close(listener)
	delete(q.listeners, listener)
}

func (q *queue) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.listeners)
}

// give a call into the judge's hand.
func (q *queue) give(t ticket) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.hand = t
}

// take it back; false when it was settled meanwhile.
func (q *queue) take(t ticket) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.release(t)
}

// release the call in hand to whoever answers it. mu is held.
func (q *queue) release(t ticket) bool {
	if q.hand != t || t == (ticket{}) {
		return false
	}
	q.hand = ticket{}
	return true
}

// begin a worker's turn; false when the container was removed since the root reported it.
func (q *queue) begin() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.serving = !q.removed.Load()
	return q.serving
}

// end a turn: put the queue back behind those of the other containers, or close it when it was removed meanwhile.
func (q *queue) end(root int) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.serving = false
	if q.removed.Load() {
		q.closeAll()
		return nil
	}
	return q.arm(root, unix.EPOLL_CTL_MOD)
}

// arm lets the root report the queue, once.
func (q *queue) arm(root, op int) error {
	event := rootEvent(q.container, unix.EPOLLIN|unix.EPOLLONESHOT)
	if err := unix.EpollCtl(root, op, q.epoll, &event); err != nil {
		return fmt.Errorf("watch a container: %w", err)
	}
	return nil
}

// remove closes everything: now, or at the end of the turn that a worker has. mu is held.
func (q *queue) remove(root int) {
	q.removed.Store(true)
	_ = unix.EpollCtl(root, unix.EPOLL_CTL_DEL, q.epoll, nil)
	if !q.serving {
		q.closeAll()
	}
}

func (q *queue) closeAll() {
	for listener := range q.listeners {
		q.shut(listener)
	}
	_ = unix.Close(q.epoll)
}

// rootEvent carries the whole handle: both halves of the kernel's 64 bits of user data.
func rootEvent(c Container, events uint32) unix.EpollEvent {
	return unix.EpollEvent{Events: events, Fd: int32(uint32(c)), Pad: int32(uint32(c >> 32))}
}

func eventContainer(e unix.EpollEvent) Container {
	return Container(uint32(e.Fd)) | Container(uint32(e.Pad))<<32
}

// duplicates of the listeners that are open.
func (q *queue) duplicates() (fds []int, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for listener := range q.listeners {
		fd, dupErr := unix.FcntlInt(uintptr(listener), unix.F_DUPFD_CLOEXEC, 0)
		if dupErr != nil {
			err = fmt.Errorf("duplicate a listener: %w", dupErr)
			continue
		}
		fds = append(fds, fd)
	}
	return fds, err
}
