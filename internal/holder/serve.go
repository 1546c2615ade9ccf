// SPDX-License-Identifier: Apache-2.0

package holder

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// How long a connection may take to say what it has to say, and how often the sockets' files are looked at.
const (
	patience   = 5 * time.Second
	lookAround = 5 * time.Second
)

// server is one goroutine around epoll: thousands of listeners cost it no goroutine, and nothing it does can block.
// Refusing can (see refuse.go), and is done by others, which post what they did.
type server struct {
	Config
	epoll, wake int
	control     *socket // the agent's
	handover    *socket // the runtimes'
	table       *table
	store       *fdStore // nil without one
	now         time.Time
	looked      time.Time

	conns  map[uint64]*conn // of agents
	peers  map[uint64]*peer // of runtimes
	byUser map[uint32]int   // peers
	lastID uint64           // of either
	agent  *conn            // that said hello; nil without one

	agents  int       // there were
	unclean bool      // the last one vanished
	alone   time.Time // since when there is no agent
	empty   time.Time // since when there is neither an agent nor a listener

	refusing   atomic.Bool
	refusers   int
	refusersOf map[uint32]int
	waiting    []*listener // for a refuser
	refused    *counts
	telling    *counts // on their way to the agent; nil when there are none
	grumbles   grumbles
	finishing  bool
	buffer     [maxMessage]byte // for what is received

	mu     sync.Mutex
	posted []func() // for the loop
}

// What epoll tells of is named by a kind in the upper byte and an id below.
const (
	aWake uint64 = iota << 56
	aControl
	aHandover
	aConn
	aPeer
	aListener
	kindMask = 0xff << 56
)

// Serve until the context ends, or nothing is kept and nobody has asked for long. It returns nil at once when another
// holder serves the same control socket.
//
// At its end all listeners are closed, and calls that are held then fail with ENOSYS, unless systemd or an agent has
// duplicates.
func Serve(ctx context.Context, c Config) (err error) {
	s := &server{Config: c.defaults(), epoll: -1, wake: -1, now: time.Now(), refused: newCounts(), conns: map[uint64]*conn{},
		peers: map[uint64]*peer{}, byUser: map[uint32]int{}, refusersOf: map[uint32]int{}}
	inherited := takeInherited()
	lock, holder, err := takeLock(s.Control, underSystemd())
	if err != nil {
		inherited.close()
		return err
	}
	if lock == nil {
		inherited.close()
		s.Log.Info("another holder is running; this one is not needed", "pid", holder)
		return nil
	}
	s.table = newTable()
	if s.store, err = openStore(); err == nil {
		err = s.open()
	}
	if err == nil {
		s.restore(inherited)
		s.store.complain(s.store.notify("READY=1"), s.Log)
		stop := context.AfterFunc(ctx, func() { s.post(func() { s.finishing = true }) })
		err = s.run()
		stop()
	}
	return errors.Join(err, s.close(), lock.release(s.store == nil))
}

func (s *server) open() (err error) {
	s.alone, s.empty, s.looked = s.now, s.now, s.now
	if s.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return fmt.Errorf("make an epoll: %w", err)
	}
	if s.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return fmt.Errorf("make an eventfd: %w", err)
	}
	if err := s.watch(s.wake, unix.EPOLLIN, aWake); err != nil {
		return err
	}
	s.control = &socket{path: s.Control, kind: unix.SOCK_SEQPACKET, mode: 0o600, fd: -1}
	s.handover = &socket{path: s.Listener, kind: unix.SOCK_STREAM, mode: 0o600, group: s.Group, fd: -1}
	return errors.Join(s.listen(s.control, aControl), s.listen(s.handover, aHandover))
}

func (s *server) listen(at *socket, key uint64) error {
	if err := at.listen(); err != nil {
		return err
	}
	return s.watch(at.fd, unix.EPOLLIN, key)
}

func (s *server) watch(fd int, events uint32, key uint64) error {
	return s.epollCtl(unix.EPOLL_CTL_ADD, fd, events, key)
}

func (s *server) rewatch(fd int, events uint32, key uint64) error {
	return s.epollCtl(unix.EPOLL_CTL_MOD, fd, events, key)
}

func (s *server) epollCtl(op, fd int, events uint32, key uint64) error {
	event := unix.EpollEvent{Events: events, Fd: int32(uint32(key)), Pad: int32(uint32(key >> 32))}
	if err := unix.EpollCtl(s.epoll, op, fd, &event); err != nil {
		return fmt.Errorf("watch a descriptor: %w", err)
	}
	return nil
}

// post work to the loop, from another goroutine.
func (s *server) post(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.posted = append(s.posted, f)
	if s.wake >= 0 {
		// It fails only when it is full, and then the loop wakes up anyway.
		_, _ = unix.Write(s.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	}
}

func (s *server) takePosted() []func() {
	var b [8]byte
	_, _ = unix.Read(s.wake, b[:])
	s.mu.Lock()
	defer s.mu.Unlock()
	posted := s.posted
	s.posted = nil
	return posted
}

func (s *server) run() error {
	events := make([]unix.EpollEvent, 256)
	for {
		n, err := unix.EpollWait(s.epoll, events, int(s.next().Milliseconds())+1)
		if err != nil && err != unix.EINTR {
			return fmt.Errorf("wait for events: %w", err)
		}
		s.now = time.Now()
		for i := range max(n, 0) {
			e := events[i]
			s.handle(uint64(uint32(e.Fd))|uint64(uint32(e.Pad))<<32, e.Events)
		}
		s.expire()
		if s.finishing {
			return nil
		}
		if s.finished() {
			s.Log.Info("nothing is kept and nobody asks: the holder ends")
			// What a detached holder had to say has nobody to read it now.
			_ = os.Remove(logFile(s.Control))
			return nil
		}
	}
}

func (s *server) handle(key uint64, events uint32) {
	id := key &^ uint64(kindMask)
	switch key & kindMask {
	case aWake:
		for _, f := range s.takePosted() {
			f()
		}
	case aControl:
		s.acceptConn()
	case aHandover:
		s.acceptPeer()
	case aConn:
		if c := s.conns[id]; c != nil {
			s.talk(c, events)
		}
	case aPeer:
		if p := s.peers[id]; p != nil {
			s.hear(p)
		}
	case aListener:
		if l := s.table.byID[id]; l != nil {
			s.listenerReady(l, events)
		}
	}
}

// next is how long the loop may sleep.
func (s *server) next() time.Duration {
	at := s.looked.Add(lookAround)
	sooner := func(t time.Time) {
		if t.Before(at) {
			at = t
		}
	}
	for _, p := range s.peers {
		sooner(p.until)
	}
	for _, c := range s.conns {
		if c != s.agent {
			sooner(c.until)
		}
	}
	if s.agent == nil && !s.refusing.Load() {
		sooner(s.alone.Add(s.Wait))
	}
	if s.idle() && s.Linger > 0 && s.store == nil {
		sooner(s.empty.Add(s.Linger))
	}
	return max(0, time.Until(at))
}

// expire what has had its time.
func (s *server) expire() {
	for _, p := range s.peers {
		if !s.now.Before(p.until) {
			s.grumble("a peer was too slow", p.uid, nil)
			s.endPeer(p)
		}
	}
	for _, c := range s.conns {
		if c != s.agent && !s.now.Before(c.until) {
			s.endConn(c)
		}
	}
	if s.agent == nil && !s.refusing.Load() && !s.now.Before(s.alone.Add(s.Wait)) {
		s.startRefusing()
	}
	if !s.now.Before(s.looked.Add(lookAround)) {
		s.looked = s.now
		s.mend(s.control, aControl)
		s.mend(s.handover, aHandover)
	}
	if !s.idle() {
		s.empty = s.now
	}
	s.grumbles.flush(s.now, s.Log)
}

// mend a socket whose file somebody has removed or replaced.
func (s *server) mend(at *socket, key uint64) {
	if at.there() {
		return
	}
	s.Log.Warn("the socket's file was gone; making it again", "path", at.path)
	at.close()
	if err := s.listen(at, key); err != nil {
		s.Log.Error("the socket cannot be made again", "path", at.path, "err", err)
	}
}

func (s *server) idle() bool {
	return len(s.table.byID) == 0 && len(s.conns) == 0 && len(s.peers) == 0 && s.refusers == 0
}

// finished tells whether the holder may go: unless somebody has connected while the sockets were taken away.
func (s *server) finished() bool {
	if s.store != nil || s.Linger < 0 || !s.idle() || s.now.Before(s.empty.Add(s.Linger)) {
		return false
	}
	s.control.unlink()
	s.handover.unlink()
	s.acceptConn()
	s.acceptPeer()
	if s.idle() {
		return true
	}
	s.empty = s.now
	s.mend(s.control, aControl)
	s.mend(s.handover, aHandover)
	return false
}

// close everything. Refusers end by themselves: they do not wait for calls.
func (s *server) close() error {
	s.refusing.Store(false)
	if s.store != nil && s.table != nil {
		s.storeCounts()
	} else if s.table != nil && len(s.table.byID) > 0 {
		s.Log.Warn("the holder ends without a store for its listeners: if no agent has them too, held calls now fail with ENOSYS until filters are injected anew",
			"listeners", len(s.table.byID))
	}
	for _, p := range s.peers {
		s.endPeer(p)
	}
	for _, c := range s.conns {
		c.clean = true // it is the holder that goes
		s.endConn(c)
	}
	for s.refusers > 0 {
		for _, f := range s.takePosted() {
			f()
		}
		if s.refusers > 0 {
			fds := []unix.PollFd{{Fd: int32(s.wake), Events: unix.POLLIN}}
			if n, err := unix.Poll(fds, int(patience.Milliseconds())); err == nil && n == 0 {
				break // one waits for a call that another process took; the process ends now
			}
		}
	}
	if s.table != nil {
		for _, l := range s.table.byID {
			if !l.busy {
				unix.Close(l.FD)
			}
		}
	}
	for _, at := range []*socket{s.control, s.handover} {
		if at != nil {
			at.unlink()
			at.close()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, fd := range []int{s.epoll, s.wake} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	s.epoll, s.wake = -1, -1
	return s.store.close()
}
