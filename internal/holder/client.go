// SPDX-License-Identifier: Apache-2.0

package holder

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// answerTime is how long the holder may take: it never does anything that blocks.
const answerTime = 10 * time.Second

// Client is the agent's connection to the holder. Its methods may be called from several goroutines.
type Client struct {
	file    *os.File // non-blocking: reads end when it is closed
	buffer  []byte   // of the one goroutine that receives
	done    chan struct{}
	lost    chan struct{}
	agents  int
	unclean bool
	refused []Refused

	mu      sync.Mutex
	first   []Kept        // what was kept at the time of the connection, until taken
	fresh   []Kept        // what came since
	arrived chan struct{} // one token when fresh is not empty
	seq     uint64
	waiting map[uint64]chan message
	told    bool
	closed  bool
	err     error
}

// Dial the holder that runs. The client is then its only agent.
func Dial(ctx context.Context, control string) (*Client, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make a socket: %w", err)
	}
	err = unix.Connect(fd, &unix.SockaddrUnix{Name: control})
	if err == nil {
		err = trusted(fd)
	}
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("connect to the holder at %s: %w", control, err)
	}
	c := &Client{file: os.NewFile(uintptr(fd), control), buffer: make([]byte, maxMessage), done: make(chan struct{}), lost: make(chan struct{}),
		arrived: make(chan struct{}, 1), waiting: map[uint64]chan message{}}
	if err := c.greet(ctx); err != nil {
		c.file.Close()
		closeAll(c.first)
		return nil, fmt.Errorf("greet the holder at %s: %w", control, err)
	}
	go c.listen()
	return c, nil
}

// trusted tells whether root or this user is at the other end: what it sends is believed.
func trusted(fd int) error {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return fmt.Errorf("ask who is there: %w", err)
	}
	if cred.Uid != 0 && cred.Uid != uint32(os.Geteuid()) {
		return fmt.Errorf("it is served by uid %d", cred.Uid)
	}
	return nil
}

// greet the holder, and take all it has.
func (c *Client) greet(ctx context.Context) error {
	until := time.Now().Add(answerTime)
	if deadline, ok := ctx.Deadline(); ok && deadline.Before(until) {
		until = deadline
	}
	if err := c.file.SetDeadline(until); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { c.file.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := c.send(message{Op: opHello, Version: protocolVersion}, -1); err != nil {
		return err
	}
	for {
		m, fd, err := c.receive()
		if err != nil {
			return errors.Join(err, ctx.Err())
		}
		switch {
		case m.Op == opGreeting && m.Version == protocolVersion:
			c.agents, c.unclean = m.Agents, m.Unclean
		case m.Op == opRefused:
			c.refused = append(c.refused, m.Refused...)
		case m.Op == opKept && m.Kept != nil && fd >= 0:
			m.Kept.FD, fd = fd, -1
			c.first = append(c.first, *m.Kept)
		case m.Op == opReady:
			return c.file.SetDeadline(time.Time{})
		default:
			closeStranger(fd)
			return fmt.Errorf("the holder says %q, which this agent does not know", m.Op)
		}
	}
}

// listen to the holder until the connection ends.
func (c *Client) listen() {
	defer close(c.done)
	err := ErrLost
	for {
		m, fd, receiveErr := c.receive()
		if receiveErr != nil {
			break
		}
		if m.Op == opReplaced {
			err = fmt.Errorf("%w: %w", ErrLost, ErrReplaced)
			break
		}
		c.hear(m, fd)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
	for seq, answer := range c.waiting {
		close(answer)
		delete(c.waiting, seq)
	}
	if !c.closed {
		close(c.lost)
	}
}

func (c *Client) hear(m message, fd int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case m.Op == opKept && m.Kept != nil && fd >= 0 && !c.closed:
		m.Kept.FD, fd = fd, -1
		c.fresh = append(c.fresh, *m.Kept)
		c.wake()
	case m.Op == opDone:
		if answer := c.waiting[m.Seq]; answer != nil {
			delete(c.waiting, m.Seq)
			answer <- m
		}
	}
	closeStranger(fd)
}

// wake one that waits in Next. The caller holds mu.
func (c *Client) wake() {
	select {
	case c.arrived <- struct{}{}:
	default:
	}
}

// Listeners are all that the holder kept when the client connected. The caller owns their FDs from then on; a second call
// returns none.
func (c *Client) Listeners() []Kept {
	c.mu.Lock()
	defer c.mu.Unlock()
	first := c.first
	c.first = nil
	return first
}

// Next is a listener that a runtime has handed over since. The caller owns its FD. It fails with ErrLost once the holder is
// lost and all that came before has been taken.
func (c *Client) Next(ctx context.Context) (Kept, error) {
	for {
		if k, ok := c.takeFresh(); ok {
			return k, nil
		}
		select {
		case <-ctx.Done():
			return Kept{}, ctx.Err()
		case <-c.arrived:
		case <-c.done:
			if k, ok := c.takeFresh(); ok {
				return k, nil
			}
			return Kept{}, fmt.Errorf("wait for a listener: %w", c.Err())
		}
	}
}

func (c *Client) takeFresh() (Kept, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.fresh) == 0 {
		return Kept{}, false
	}
	k := c.fresh[0]
	c.fresh = c.fresh[1:]
	if len(c.fresh) > 0 {
		c.wake()
	}
	return k, true
}

// Keep a duplicate of k.FD, which stays the caller's; k.ID is ignored. A listener of that container that is kept already has
// its old id.
func (c *Client) Keep(k Kept) (id uint64, err error) {
	m, err := c.ask(message{Op: opKeep, Kept: &k}, k.FD)
	if err != nil {
		return 0, fmt.Errorf("give a listener to the holder: %w", err)
	}
	return m.ID, nil
}

// Drop the holder's duplicate, if it still has one.
func (c *Client) Drop(id uint64) error {
	if _, err := c.ask(message{Op: opDrop, ID: id}, -1); err != nil {
		return fmt.Errorf("drop a listener of the holder's: %w", err)
	}
	return nil
}

// ask and wait for the answer.
func (c *Client) ask(m message, fd int) (message, error) {
	answer := make(chan message, 1)
	c.mu.Lock()
	if err := c.err; err != nil {
		c.mu.Unlock()
		return message{}, err
	}
	c.seq++
	m.Seq = c.seq
	c.waiting[m.Seq] = answer
	c.mu.Unlock()
	if err := c.send(m, fd); err != nil {
		c.mu.Lock()
		delete(c.waiting, m.Seq)
		c.mu.Unlock()
		return message{}, err
	}
	timer := time.NewTimer(answerTime)
	defer timer.Stop()
	select {
	case got, ok := <-answer:
		if !ok {
			return message{}, c.Err()
		}
		if got.Error != "" {
			return message{}, errors.New(got.Error)
		}
		return got, nil
	case <-timer.C:
		return message{}, fmt.Errorf("%w: it does not answer", ErrLost)
	}
}

// Refused is what the holder refused before this agent came, by container and call. The holder forgets it when this is first
// called: an agent that dies before leaves it to the next.
func (c *Client) Refused() []Refused {
	c.mu.Lock()
	first := !c.told
	c.told = true
	c.mu.Unlock()
	if first {
		// If the holder is lost there is nothing left to be forgotten.
		_ = c.send(message{Op: opTold}, -1)
	}
	return c.refused
}

// Agents that the holder has had before this one.
func (c *Client) Agents() int { return c.agents }

// Unclean tells that the last agent vanished without Close, or was replaced while it lived: it may have taken notifications
// along, and their threads wait for an answer that nobody will give until they are kicked.
func (c *Client) Unclean() bool { return c.unclean }

// Lost is closed when the holder has died or has turned to a newer agent; Err says which. Close does not close it.
func (c *Client) Lost() <-chan struct{} { return c.lost }

// Err is why the client was lost: an ErrLost that is an ErrReplaced too when a newer agent is the reason.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Close says goodbye to the holder, and closes the listeners that nobody has taken.
func (c *Client) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	c.mu.Unlock()
	// A holder that is lost needs no goodbye.
	_ = c.send(message{Op: opBye}, -1)
	err := c.file.Close()
	<-c.done
	c.mu.Lock()
	defer c.mu.Unlock()
	closeAll(c.first)
	closeAll(c.fresh)
	c.first, c.fresh = nil, nil
	return err
}

func closeAll(list []Kept) {
	for _, k := range list {
		unix.Close(k.FD)
	}
}

// send one message; it waits while the holder has no room.
func (c *Client) send(m message, fd int) error {
	raw, err := c.file.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	err = raw.Write(func(socket uintptr) bool {
		inner = send(int(socket), m, fd)
		return inner != unix.EAGAIN
	})
	return errors.Join(err, inner)
}

func (c *Client) receive() (m message, fd int, err error) {
	raw, err := c.file.SyscallConn()
	if err != nil {
		return m, -1, err
	}
	n, fd := 0, -1
	var inner error
	err = raw.Read(func(socket uintptr) bool {
		for {
			// ECONNRESET, told once: the holder has closed; what it said before is still to be read.
			if n, fd, inner = receive(int(socket), c.buffer); inner != unix.EINTR && inner != unix.ECONNRESET {
				return inner != unix.EAGAIN
			}
		}
	})
	if err := errors.Join(err, inner); err != nil {
		return m, -1, err
	}
	if n == 0 {
		return m, -1, ErrLost
	}
	if err := json.Unmarshal(c.buffer[:n], &m); err != nil {
		closeStranger(fd)
		return m, -1, fmt.Errorf("read a message: %w", err)
	}
	return m, fd, nil
}
