// SPDX-License-Identifier: Apache-2.0

// Package supervise reads the seccomp listeners of containers and gives each held call to its container's judge, once.
// It knows no policy, installs no filter, and keeps no queue: held calls wait in the kernel until their container's
// turn comes, so a flood costs no memory and delays nobody else. A judge may park a call: it waits in the kernel, too,
// until Settle answers it, and delays nobody.
//
// Each container has an epoll of its listeners, and all of these sit in one root epoll, one-shot. A worker that the root
// wakes has that container to itself, answers at most a share of its calls, one from each ready listener in turn, and
// puts it back behind the others: the root's ready list is the round robin. So a container has one worker at most, and
// a held call waits for at most one share of each other container that has calls, and one more of one of them.
//
// A listener must have one reader: of two, the slower one would block in the kernel with a worker. Whoever else holds a
// duplicate must leave it unread while the supervisor runs.
package supervise

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// share is how many calls of one container a worker answers before it looks at the others.
const share = 16

// Supervisor answers the held calls of many containers. Run does the work; everything else may be called before, during
// and after, from any goroutine and from judges.
type Supervisor struct {
	log     *slog.Logger
	root    int // epoll of the queues' epolls and of stop
	stop    int // eventfd: readable once the workers shall end
	workers int
	// answerWords is how long this kernel's struct seccomp_notif_resp is, in units of 8 bytes.
	answerWords int
	idle        *idle
	count       counts
	started     atomic.Bool
	ending      atomic.Bool

	mu     sync.RWMutex
	queues map[Container]*queue
	closed bool
}

// New makes a supervisor without containers. Close it when Run has returned.
func New(log *slog.Logger) (*Supervisor, error) {
	return newSupervisor(log, max(4, runtime.GOMAXPROCS(0)))
}

func newSupervisor(log *slog.Logger, workers int) (*Supervisor, error) {
	_, resp, err := notifSizes()
	if err != nil {
		return nil, err
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	root, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("create the root epoll: %w", err)
	}
	stop, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		_ = unix.Close(root)
		return nil, fmt.Errorf("create the stop event: %w", err)
	}
	event := rootEvent(NoContainer, unix.EPOLLIN)
	if err := unix.EpollCtl(root, unix.EPOLL_CTL_ADD, stop, &event); err != nil {
		_ = unix.Close(root)
		_ = unix.Close(stop)
		return nil, fmt.Errorf("watch the stop event: %w", err)
	}
	return &Supervisor{
		log: log, root: root, stop: stop, workers: workers, answerWords: (resp + 7) / 8, idle: newIdle(),
		queues: make(map[Container]*queue),
	}, nil
}

// Run answers held calls until ctx is done; it returns nil then. What was received by that time is answered first, and
// what was parked is refused, or let through where its judge said so (Verdict.Later): the kernel hands a received call to
// no reader again, so nobody else could answer it. What was not received stays in the kernel for the next reader: the
// listeners stay open until Remove or Close. It runs once.
func (s *Supervisor) Run(ctx context.Context) error {
	if s.started.Swap(true) {
		return errors.New("run a supervisor: it has run before")
	}
	working, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var group sync.WaitGroup
	for range s.workers {
		w, err := newWorker(s)
		if err != nil {
			cancel(err)
			break
		}
		s.employ(&group, w, cancel)
	}
	group.Go(func() { s.idle.pump(working) })
	<-working.Done()
	s.end()
	group.Wait()
	s.refuseAllParked()
	if ctx.Err() == nil {
		return context.Cause(working)
	}
	return nil
}

// employ a worker until it returns. A judge that calls runtime.Goexit takes the goroutine along, not the worker.
func (s *Supervisor) employ(group *sync.WaitGroup, w *worker, cancel context.CancelCauseFunc) {
	group.Go(func() {
		returned := false
		defer func() {
			if !returned {
				s.employ(group, w, cancel)
			}
		}()
		if err := w.run(); err != nil {
			cancel(err)
		}
		returned = true
	})
}

// end tells all workers: the event is level-triggered and never read.
func (s *Supervisor) end() {
	s.ending.Store(true)
	one := [8]byte{1}
	for {
		if _, err := unix.Write(s.stop, one[:]); !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// Close closes all listeners. Call it after Run has returned, or instead of Run.
func (s *Supervisor) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.closed = true
	for c, q := range s.queues {
		s.remove(q)
		delete(s.queues, c)
	}
	_ = unix.Close(s.root)
	_ = unix.Close(s.stop)
}

// Add has the supervisor read a listener of the container, whose judge is set too unless it is nil. The listener belongs
// to the supervisor from now on, and is closed when Add fails. A container may have several: each process that a filter
// was injected into has its own, and so has each exec. Calls of a container without a judge are refused.
func (s *Supervisor) Add(c Container, listener int, judge Judge) error {
	if !IsListener(listener) {
		// Whatever it is, it was given away; but 0, 1 and 2 come from mistakes, and others use them.
		if listener > 2 {
			_ = unix.Close(listener)
		}
		return fmt.Errorf("add listener %d: not a seccomp listener", listener)
	}
	if err := s.add(c, listener, judge); err != nil {
		_ = unix.Close(listener)
		return fmt.Errorf("add a listener: %w", err)
	}
	s.idle.forget(c)
	return nil
}

func (s *Supervisor) add(c Container, listener int, judge Judge) error {
	if c == NoContainer {
		return errors.New("no container was named")
	}
	unix.CloseOnExec(listener)
	if err := wakeOnSameCPU(listener); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errors.New("the supervisor is closed")
	}
	if q := s.queues[c]; q != nil {
		if judge != nil {
			q.setJudge(judge)
		}
		return q.add(listener)
	}
	q, err := newQueue(c)
	if err != nil {
		return err
	}
	q.setJudge(judge)
	err = q.add(listener)
	if err == nil {
		err = q.arm(s.root, unix.EPOLL_CTL_ADD)
	}
	if err != nil {
		_ = unix.Close(q.epoll) // and not the listener, which the caller closes
		return err
	}
	s.queues[c] = q
	return nil
}

// SetJudge replaces a container's judge: every call that is given to a judge from now on is given to this one. A call
// that the old one has at this moment is answered by it. A container that is not there is left so.
func (s *Supervisor) SetJudge(c Container, judge Judge) {
	if q := s.queue(c); q != nil {
		q.setJudge(judge)
	}
}

// Remove closes a container's listeners. Its parked calls are refused first. Its other held calls fail with ENOSYS then,
// unless somebody holds duplicates. A call that the judge has at this moment is answered first, by the worker that has
// it, and refused if the judge says Later: Remove does not wait for that.
func (s *Supervisor) Remove(c Container) {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := s.queues[c]
	if q == nil {
		return
	}
	delete(s.queues, c)
	s.remove(q)
	s.idle.forget(c)
}

func (s *Supervisor) remove(q *queue) {
	q.mu.Lock()
	defer q.mu.Unlock()
	s.refuseParked(q, -1)
	q.remove(s.root)
}

// Listeners is how many listeners of the container are open.
func (s *Supervisor) Listeners(c Container) int {
	if q := s.queue(c); q != nil {
		return q.len()
	}
	return 0
}

// Duplicates of a container's listeners, for a holder. The caller owns them, and must not read them.
func (s *Supervisor) Duplicates(c Container) ([]int, error) {
	if q := s.queue(c); q != nil {
		return q.duplicates()
	}
	return nil, nil
}

// Idle reports each container whose last listener hung up: its last filtered task is gone. Where listeners are added
// meanwhile the report may be out of date, so ask Listeners. A slow reader loses nothing and delays nobody. The channel
// is never closed.
func (s *Supervisor) Idle() <-chan Container { return s.idle.out }

// Answered counts what became of the held calls.
func (s *Supervisor) Answered() Counters { return s.count.read() }

func (s *Supervisor) queue(c Container) *queue {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.queues[c]
}
