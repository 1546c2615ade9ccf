// SPDX-License-Identifier: Apache-2.0

package holder

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// maxConns that have not said hello.
const maxConns = 32

// conn of an agent. What it is to be told waits in line until it reads: an agent that does not read costs a line of at most
// one entry per listener, and nobody's time.
type conn struct {
	id      uint64
	fd      int
	pid     int
	until   time.Time // to say hello
	line    []outgoing
	writing bool // epoll is asked when it can be written to
	clean   bool // it has said bye, or was told to go
	ending  bool // to be closed when the line is empty
}

// outgoing is a message or, with a listener's id, that listener as it then is: it may be gone.
type outgoing struct {
	message  message
	listener uint64
}

func (s *server) acceptConn() {
	for {
		fd, cred, err := s.control.accept()
		if err == unix.ECONNABORTED || err == unix.EINTR {
			continue
		}
		if err != nil {
			if err != unix.EAGAIN {
				s.grumble("an agent's connection cannot be accepted", 0, err)
			}
			return
		}
		s.lastID++
		c := &conn{id: s.lastID, fd: fd, pid: int(cred.Pid), until: s.now.Add(patience)}
		// The file's mode keeps others out; this holds where somebody has changed it.
		allowed := cred.Uid == 0 || cred.Uid == uint32(os.Geteuid())
		if !allowed || len(s.conns) >= maxConns || s.watch(fd, unix.EPOLLIN, aConn|c.id) != nil {
			s.grumble("an agent's connection is refused", cred.Uid, nil)
			unix.Close(fd)
			continue
		}
		s.conns[c.id] = c
	}
}

// talk with an agent: what it says first, then what waits in line.
func (s *server) talk(c *conn, events uint32) {
	for events&(unix.EPOLLIN|unix.EPOLLHUP|unix.EPOLLERR) != 0 && !c.ending {
		n, fd, err := receive(c.fd, s.buffer[:])
		if err == unix.EAGAIN {
			break
		}
		// ECONNRESET, told once: the agent has closed without reading all. What it said before is still to be read.
		if err == unix.EINTR || err == unix.ECONNRESET {
			continue
		}
		if err != nil || n == 0 {
			closeStranger(fd)
			s.endConn(c)
			return
		}
		if err := s.obey(c, s.buffer[:n], fd); err != nil {
			s.Log.Warn("the agent's connection is closed", "pid", c.pid, "err", err)
			s.endConn(c)
			return
		}
	}
	s.flush(c)
}

// obey one message. The descriptor is used up.
func (s *server) obey(c *conn, data []byte, fd int) error {
	defer func() { closeStranger(fd) }()
	var m message
	if err := json.Unmarshal(data, &m); err != nil {
		return fmt.Errorf("read a message: %w", err)
	}
	if (c == s.agent) == (m.Op == opHello) {
		return fmt.Errorf("%q is out of place", m.Op)
	}
	switch m.Op {
	case opHello:
		if m.Version != protocolVersion {
			return fmt.Errorf("the agent speaks version %d, this holder %d", m.Version, protocolVersion)
		}
		s.welcome(c)
	case opKeep:
		done := message{Op: opDone, Seq: m.Seq}
		id, err := s.keepForAgent(m.Kept, fd)
		if done.ID = id; err != nil {
			done.Error = err.Error()
		} else {
			fd = -1
		}
		s.tell(c, done)
	case opDrop:
		if l := s.table.byID[m.ID]; l != nil {
			s.drop(l)
		}
		s.tell(c, message{Op: opDone, Seq: m.Seq, ID: m.ID})
	case opTold:
		s.telling = nil
	case opBye:
		c.clean = true
	default:
		return fmt.Errorf("%q is no message to a holder", m.Op)
	}
	return nil
}

// keepForAgent takes the descriptor, unless there is an error.
func (s *server) keepForAgent(k *Kept, fd int) (id uint64, err error) {
	if k == nil || fd < 0 || !isListener(fd) {
		return 0, errors.New("no seccomp listener came along")
	}
	if err := k.check(); err != nil {
		return 0, err
	}
	if k.ID, k.FD = 0, fd; k.Received.IsZero() {
		k.Received = s.now
	}
	l, added, err := s.keep(*k)
	if err != nil {
		return 0, err
	}
	if !added {
		unix.Close(fd)
	}
	return l.ID, nil
}

// welcome a new agent, and see the old one off.
func (s *server) welcome(c *conn) {
	if old := s.agent; old != nil {
		s.Log.Info("a newer agent has come", "pid", c.pid, "old", old.pid)
		// It lives, and may still read its listeners: as far as calls go, it is as if it had vanished.
		s.agentGone(old, false)
		old.line, old.ending = append(old.line, outgoing{message: message{Op: opReplaced}}), true
		old.until = s.now.Add(patience)
		s.flush(old)
	}
	s.stopRefusing()
	s.agent = c
	s.tell(c, message{Op: opGreeting, Version: protocolVersion, Agents: s.agents, Unclean: s.unclean})
	s.agents++
	s.telling, s.refused = s.refused, newCounts()
	for chunk := range slices.Chunk(s.telling.list(), 100) {
		s.tell(c, message{Op: opRefused, Refused: chunk})
	}
	for _, l := range s.table.byID {
		c.line = append(c.line, outgoing{message: message{Op: opKept}, listener: l.ID})
	}
	s.tell(c, message{Op: opReady})
	s.Log.Info("an agent has come", "pid", c.pid, "listeners", len(s.table.byID))
}

func (s *server) tell(c *conn, m message) { c.line = append(c.line, outgoing{message: m}) }

// offer a new listener to the agent, if there is one. Else it gets it when it comes.
func (s *server) offer(l *listener) {
	if s.agent != nil {
		s.agent.line = append(s.agent.line, outgoing{message: message{Op: opKept}, listener: l.ID})
		s.flush(s.agent)
	}
}

// flush the line as far as the connection takes it.
func (s *server) flush(c *conn) {
	for len(c.line) > 0 {
		err := s.sendNext(c)
		// ETOOMANYREFS: too many descriptors are on their way; it passes when the agent reads.
		if err == unix.EAGAIN || err == unix.ETOOMANYREFS || err == unix.ENOBUFS {
			s.askToWrite(c, true)
			return
		}
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			s.endConn(c)
			return
		}
		c.line = c.line[1:]
	}
	c.line = nil
	s.askToWrite(c, false)
	if c.ending {
		s.endConn(c)
	}
}

func (s *server) sendNext(c *conn) error {
	next := c.line[0]
	if next.listener == 0 {
		return send(c.fd, next.message, -1)
	}
	l := s.table.byID[next.listener]
	if l == nil || l.gone {
		return nil
	}
	next.message.Kept = &l.Kept
	return send(c.fd, next.message, l.FD)
}

func (s *server) askToWrite(c *conn, writing bool) {
	if c.writing == writing {
		return
	}
	events := uint32(unix.EPOLLIN)
	if writing {
		events |= unix.EPOLLOUT
	}
	if err := s.rewatch(c.fd, events, aConn|c.id); err == nil {
		c.writing = writing
	}
}

func (s *server) endConn(c *conn) {
	if s.conns[c.id] != c {
		return
	}
	delete(s.conns, c.id)
	unix.Close(c.fd)
	if c == s.agent {
		s.Log.Info("the agent has gone", "pid", c.pid, "clean", c.clean)
		s.agentGone(c, c.clean)
	}
}

// agentGone begins the time that held calls wait.
func (s *server) agentGone(c *conn, clean bool) {
	c.clean = clean
	s.agent, s.unclean, s.alone = nil, !clean, s.now
	if s.telling != nil {
		s.refused.merge(s.telling)
		s.telling = nil
	}
}
