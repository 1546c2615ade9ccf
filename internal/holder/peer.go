// SPDX-License-Identifier: Apache-2.0

package holder

import (
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// How many connections of runtimes may be open at once. Each lives for patience at most, and root's are not many.
const (
	maxPeers       = 1024
	maxPeersByUser = 64 // of a uid other than 0
	maxForeign     = 768
)

// peer is a connection of an OCI runtime, or of somebody who says so. It sends one state and one descriptor. It need not
// close then: runc 1.1 and crun 1.8 leave that to their exit, and wait for the container first.
type peer struct {
	id    uint64
	fd    int
	uid   uint32
	until time.Time
	data  []byte
	scan  scan
	given int // the descriptor; -1 without
}

// scan finds the end of a JSON value without reading any byte twice.
type scan struct {
	depth            int
	inString, escape bool
}

// ended tells whether an object or array that began before, or in data, ends in it.
func (s *scan) ended(data []byte) bool {
	for _, b := range data {
		switch {
		case s.escape:
			s.escape = false
		case s.inString:
			s.escape, s.inString = b == '\\', b != '"'
		case b == '"':
			s.inString = true
		case b == '{' || b == '[':
			s.depth++
		case b == '}' || b == ']':
			if s.depth--; s.depth <= 0 {
				return true
			}
		}
	}
	return false
}

// strangers are descriptors that are being closed, see closeStranger.
var strangers atomic.Int32

// maxStrangers is how many may hang before only root is listened to.
const maxStrangers = 64

func (s *server) acceptPeer() {
	for {
		fd, cred, err := s.handover.accept()
		if err == unix.ECONNABORTED || err == unix.EINTR {
			continue
		}
		if err != nil {
			if err != unix.EAGAIN {
				s.grumble("a runtime's connection cannot be accepted", 0, err)
			}
			return
		}
		if !s.mayHandOver(cred.Uid) {
			s.grumble("too many connections", cred.Uid, nil)
			unix.Close(fd)
			continue
		}
		s.lastID++
		p := &peer{id: s.lastID, fd: fd, uid: cred.Uid, until: s.now.Add(patience), given: -1}
		if err := s.watch(fd, unix.EPOLLIN|unix.EPOLLRDHUP, aPeer|p.id); err != nil {
			s.grumble("a runtime's connection cannot be watched", cred.Uid, err)
			unix.Close(fd)
			continue
		}
		s.peers[p.id] = p
		s.byUser[p.uid]++
	}
}

// mayHandOver keeps users from taking each other's places, and root's.
func (s *server) mayHandOver(uid uint32) bool {
	if len(s.peers) >= maxPeers {
		return false
	}
	return uid == 0 || s.byUser[uid] < maxPeersByUser && len(s.peers)-s.byUser[0] < maxForeign && strangers.Load() < maxStrangers
}

// hear what the peer sends, until that is a whole value or it closes.
func (s *server) hear(p *peer) {
	for {
		n, fd, err := receive(p.fd, s.buffer[:])
		if err == unix.EAGAIN || err == unix.EINTR {
			return
		}
		if fd >= 0 && p.given >= 0 {
			closeStranger(fd)
			err = errManyFDs
		} else if fd >= 0 {
			p.given = fd
		}
		if err == nil && len(p.data)+n > maxState {
			err = errors.New("more than a state")
		}
		if err != nil {
			s.grumble("a hand-over is refused", p.uid, err)
			s.endPeer(p)
			return
		}
		p.data = append(p.data, s.buffer[:n]...)
		if n == 0 || p.scan.ended(s.buffer[:n]) {
			s.handedOver(p)
			s.endPeer(p)
			return
		}
	}
}

// handedOver is the whole of what a peer had to say.
func (s *server) handedOver(p *peer) {
	if len(p.data) == 0 && p.given < 0 {
		return // somebody looked whether there is a holder
	}
	k, err := parseState(p.data)
	if err == nil && p.given < 0 {
		err = errors.New("no descriptor came along")
	}
	if err == nil && !isListener(p.given) {
		err = errors.New("the descriptor is no seccomp listener")
	}
	if err != nil {
		s.grumble("a hand-over is refused", p.uid, err)
		return
	}
	k.UID, k.Received, k.FD = p.uid, s.now, p.given
	l, added, err := s.keep(k)
	if err != nil {
		s.grumble("a hand-over is refused", p.uid, err)
		return
	}
	if added {
		p.given = -1 // the table's
		s.Log.Debug("a listener was handed over", "container", l.Container, "id", l.ID, "exec", l.Exec, "uid", l.UID)
		s.offer(l)
	}
}

func (s *server) endPeer(p *peer) {
	delete(s.peers, p.id)
	if s.byUser[p.uid]--; s.byUser[p.uid] == 0 {
		delete(s.byUser, p.uid)
	}
	unix.Close(p.fd)
	closeStranger(p.given)
}

// grumbles are complaints that anybody who may connect can cause: one a second is logged, the others are counted.
type grumbles struct {
	last    time.Time
	skipped int
}

func (s *server) grumble(what string, uid uint32, err error) {
	if s.now.Sub(s.grumbles.last) < time.Second {
		s.grumbles.skipped++
		return
	}
	s.grumbles.last = s.now
	s.Log.Warn(what, "uid", uid, "err", err)
}

func (g *grumbles) flush(now time.Time, log *slog.Logger) {
	if g.skipped > 0 && now.Sub(g.last) >= time.Second {
		log.Warn("more complaints like the last", "count", g.skipped)
		g.skipped, g.last = 0, now
	}
}
