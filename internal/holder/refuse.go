// SPDX-License-Identifier: Apache-2.0

package holder

import (
	"encoding/binary"
	"math"
	"time"
	"unsafe"

	"github.com/whittle-sec/whittle/internal/syscalls"
	"golang.org/x/sys/unix"
)

// A refuser is a goroutine that refuses what one listener holds. Receiving blocks where somebody else takes the call between
// poll(2) and ioctl(2): an agent that lives although it is connected no more, or a user who kept a duplicate of what its
// own runtime handed over, and does so on purpose. So the loop never receives itself, there are not more refusers than
// threads that may be lost to that, and users cannot have all of them.
const (
	maxRefusers       = 64
	maxRefusersByUser = 8   // of a uid other than 0
	refuseAtOnce      = 256 // calls, before others get their turn
)

// keep a listener: from here it is the holder's.
func (s *server) keep(k Kept) (*listener, bool, error) {
	l, added, err := s.table.add(k)
	if err != nil || !added {
		return l, added, err
	}
	if err := s.watch(l.FD, s.listenerEvents(), aListener|l.ID); err != nil {
		s.table.remove(l)
		return nil, false, err
	}
	s.store.save(l, s.Log)
	return l, true, nil
}

// listenerEvents: a hang-up is always told. While nothing is refused the holder is not even woken by held calls.
func (s *server) listenerEvents() uint32 {
	if s.refusing.Load() {
		return unix.EPOLLIN | unix.EPOLLONESHOT
	}
	return 0
}

func (s *server) listenerReady(l *listener, events uint32) {
	if events&(unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		s.drop(l)
		return
	}
	if !l.busy && events&unix.EPOLLIN != 0 && s.refusing.Load() {
		l.busy = true
		s.waiting = append(s.waiting, l)
		s.startRefusers()
	}
}

// drop a listener: its last task has gone, or the agent says so.
func (s *server) drop(l *listener) {
	if l.gone {
		return
	}
	l.gone = true
	s.Log.Debug("a listener is dropped", "container", l.Container, "id", l.ID)
	s.table.remove(l)
	s.store.forget(l, s.Log)
	// By hand: the file stays in the epoll as long as anybody has a duplicate of the descriptor.
	_ = unix.EpollCtl(s.epoll, unix.EPOLL_CTL_DEL, l.FD, nil)
	if !l.busy {
		unix.Close(l.FD)
	}
}

func (s *server) startRefusing() {
	s.refusing.Store(true)
	if len(s.table.byID) > 0 {
		s.Log.Warn("no agent came in time: held calls are refused until one comes", "wait", s.Wait, "listeners", len(s.table.byID))
	}
	s.rewatchListeners()
}

func (s *server) stopRefusing() {
	if s.refusing.Swap(false) {
		s.rewatchListeners()
	}
}

func (s *server) rewatchListeners() {
	for _, l := range s.table.byID {
		if err := s.rewatch(l.FD, s.listenerEvents(), aListener|l.ID); err != nil {
			s.Log.Error("a listener cannot be watched", "container", l.Container, "err", err)
		}
	}
}

func (s *server) startRefusers() {
	later := s.waiting[:0]
	for _, l := range s.waiting {
		if !s.mayRefuse(l.UID) {
			later = append(later, l)
			continue
		}
		s.refusers++
		s.refusersOf[l.UID]++
		go func() {
			done := s.refuse(l.Container, l.FD)
			s.post(func() { s.refuserDone(l, done) })
		}()
	}
	clear(s.waiting[len(later):])
	s.waiting = later
}

// mayRefuse keeps half of the refusers for root's containers.
func (s *server) mayRefuse(uid uint32) bool {
	if uid == 0 {
		return s.refusers < maxRefusers
	}
	return s.refusers-s.refusersOf[0] < maxRefusers/2 && s.refusersOf[uid] < maxRefusersByUser
}

func (s *server) refuserDone(l *listener, done *counts) {
	s.refusers--
	if s.refusersOf[l.UID]--; s.refusersOf[l.UID] == 0 {
		delete(s.refusersOf, l.UID)
	}
	l.busy = false
	if len(done.of) > 0 {
		s.refused.merge(done)
		s.Log.Warn("held calls were refused without an agent", "container", l.Container, "counters", len(done.of))
	}
	if l.gone {
		unix.Close(l.FD)
	} else if err := s.rewatch(l.FD, s.listenerEvents(), aListener|l.ID); err != nil {
		s.Log.Error("a listener cannot be watched", "container", l.Container, "err", err)
	}
	s.startRefusers()
}

// refuse what the listener holds, until it holds nothing or an agent has come.
func (s *server) refuse(container string, fd int) *counts {
	done := newCounts()
	for range refuseAtOnce {
		if !s.refusing.Load() || !holds(fd) {
			break
		}
		call, ok := refuseOne(fd)
		if ok {
			now := time.Now()
			done.add(counter{container, call}, tally{count: 1, since: now, last: now})
		}
	}
	return done
}

// holds tells whether there is a call that nobody has received.
func holds(fd int) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n == 1 && fds[0].Revents&unix.POLLIN != 0
}

// What the kernel writes is struct seccomp_notif of seccomp.h, 80 bytes today: id at 0, nr at 16, arch at 20. A newer
// kernel may write more, so there is room, aligned for the ids and all zeroes, as it demands.
type notification [64]uint64

// response is struct seccomp_notif_resp.
type response struct {
	id    uint64
	val   int64
	errno int32
	flags uint32
}

// refuseOne held call with EPERM. It fails where the call was taken, or its task killed or interrupted: then nothing was
// refused.
func refuseOne(fd int) (call syscalls.Call, ok bool) {
	var n notification
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SECCOMP_IOCTL_NOTIF_RECV, uintptr(unsafe.Pointer(&n))); errno != 0 {
		return call, false
	}
	r := response{id: n[0], errno: -int32(unix.EPERM)}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SECCOMP_IOCTL_NOTIF_SEND, uintptr(unsafe.Pointer(&r))); errno != 0 {
		return call, false
	}
	var data [8]byte
	binary.NativeEndian.PutUint64(data[:], n[2])
	nr, arch := binary.NativeEndian.Uint32(data[:4]), binary.NativeEndian.Uint32(data[4:])
	if nr > math.MaxInt32 {
		return syscalls.Call{}, true
	}
	call, known := syscalls.FromAudit(arch, nr)
	if !known {
		return syscalls.Call{}, true
	}
	return call, true
}
