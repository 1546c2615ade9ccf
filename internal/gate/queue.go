// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxHeld bounds the kernel memory that a flood of SYNs can take. The queue itself is longer, so that what is too
	// much is dropped and counted here, and the newer SYN of a connection that waits still gets in.
	maxHeld        = 4096
	maxQueueLength = maxHeld + 1024
	// Headers only: the largest IP header with options, and TCP's ports and flags.
	copyLength    = 160
	receiveBuffer = 8 << 20

	firstNumber, lastNumber = 20000, 60000
	triesForNumber          = 32

	// Connections that all come at once overflow the queues of a service that has a short backlog: the kernel then
	// answers with SYN cookies, drops the client's answer to those that it has no room for, and the client waits for a
	// service that knows nothing of it. So they are let go at a pace that a service accepts at: 4000 a second.
	releaseAtOnce = 4
	releasePause  = time.Millisecond
	// drain is how long the queue is read after the rules are gone, for packets that were under way to it.
	drain = 20 * time.Millisecond
)

// queue is an NFQUEUE of the kernel, and the goroutine that reads it.
type queue struct {
	number uint16
	passed uint32 // mark of what is let go: the rules know by it not to queue it again, and take it off
	to     []Destination
	socket *os.File
	conn   interface {
		Read(f func(fd uintptr) (done bool)) error
		Write(f func(fd uintptr) (done bool)) error
	}
	kernel *os.File // what the kernel counts
	done   chan struct{}

	mu        sync.Mutex
	open      bool
	waiting   waiting
	lost      uint64 // dropped by the kernel for want of room, as it was at the end
	lostFinal bool
}

// openQueue with a number that no reader has, in the network namespace of the calling thread.
func openQueue(to []Destination) (*queue, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("opening a packet queue: %w", err)
	}
	q := &queue{to: to, passed: rand.Uint32() | 1, done: make(chan struct{})}
	q.waiting = waiting{limit: maxHeld, packet: map[connection]queued{}}
	if err := q.configure(fd); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("opening a packet queue: %w", err)
	}
	if q.kernel, err = os.Open("/proc/thread-self/net/netfilter/nfnetlink_queue"); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("opening a packet queue: %w", err)
	}
	q.socket = os.NewFile(uintptr(fd), "nfqueue") // non-blocking by now: the runtime waits for it
	if q.conn, err = q.socket.SyscallConn(); err != nil {
		return nil, errors.Join(fmt.Errorf("opening a packet queue: %w", err), q.socket.Close(), q.kernel.Close())
	}
	go q.read()
	return q, nil
}

func (q *queue) configure(fd int) error {
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	// Without it a flood of SYNs would cost more than its packets.
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer); err != nil {
		return err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_NO_ENOBUFS, 1); err != nil {
		return err
	}
	// The kernel answers before sendto returns; this is for a kernel that does not.
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5}); err != nil {
		return err
	}
	if err := q.bind(fd); err != nil {
		return err
	}
	length := attribute{configMaxLength, number(maxQueueLength)}
	if err := request(fd, message(msgConfig, unix.NLM_F_ACK, q.number, length)); err != nil {
		return fmt.Errorf("bounding it: %w", err)
	}
	params := attribute{configParams, append(number(copyLength), copyPacket)}
	if err := request(fd, message(msgConfig, unix.NLM_F_ACK, q.number, params)); err != nil {
		return fmt.Errorf("asking for packets: %w", err)
	}
	return unix.SetNonblock(fd, true)
}

// bind to a free number. Others' programs choose small ones, and the same ones each time.
func (q *queue) bind(fd int) error {
	var err error
	for range triesForNumber {
		q.number = uint16(firstNumber + rand.IntN(lastNumber-firstNumber))
		command := attribute{configCommand, []byte{commandBind, 0, 0, 0}}
		err = request(fd, message(msgConfig, unix.NLM_F_ACK, q.number, command))
		if !errors.Is(err, unix.EBUSY) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("binding to number %d: %w", q.number, err)
	}
	return nil
}

// request sends a message and reads its acknowledgement. Packets cannot come in between: no rule names the queue yet,
// and what another's rule sends is asked for only by the last message.
func request(fd int, m []byte) error {
	if err := unix.Sendto(fd, m, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	b := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, b, 0)
	if err != nil {
		return err
	}
	for kind, content := range messages(b[:n]) {
		if kind != unix.NLMSG_ERROR {
			continue
		}
		errno, ok := parseError(content)
		if !ok {
			break
		}
		if errno != 0 {
			return errno
		}
		return nil
	}
	return errors.New("the kernel's answer is no acknowledgement")
}

// read what the kernel queues, until a deadline or Close.
func (q *queue) read() {
	defer close(q.done)
	b := make([]byte, 64<<10)
	for {
		n, from, err := 0, unix.Sockaddr(nil), error(nil)
		gone := q.conn.Read(func(fd uintptr) bool {
			n, from, err = unix.Recvfrom(int(fd), b, 0)
			return !errors.Is(err, unix.EAGAIN)
		})
		if gone != nil {
			return
		}
		if kernel, ok := from.(*unix.SockaddrNetlink); err != nil || !ok || kernel.Pid != 0 {
			continue // ENOBUFS is told by the kernel's own counter; nobody else has a say
		}
		for kind, content := range messages(b[:n]) {
			// Errors are answers to verdicts on packets that the kernel has dropped meanwhile.
			if p, ok := parsePacket(content); ok && kind == msgPacket {
				q.decide(p)
			}
		}
	}
}

func (q *queue) decide(p packet) {
	src, dst, ok := parseSYN(p.payload)
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case !ok || !matches(q.to, dst): // it came by a rule that is not ours
		q.send(message(msgVerdict, 0, q.number, attribute{attrVerdictHeader, number(verdictAccept, p.id)}))
	case q.open:
		q.let(queued{p.id, p.mark})
	default:
		if drop, old := q.waiting.add(connection{src, dst, p.hook, p.in}, queued{p.id, p.mark}); old {
			q.send(message(msgVerdict, 0, q.number, attribute{attrVerdictHeader, number(verdictDrop, drop)}))
		}
	}
}

// let a packet go on, through the whole table again: accepted, it would skip the rules behind ours, of which some may
// refuse it. One that has a mark already keeps it, and is accepted.
func (q *queue) let(p queued) {
	if p.mark != 0 {
		q.send(message(msgVerdict, 0, q.number, attribute{attrVerdictHeader, number(verdictAccept, p.id)}))
		return
	}
	q.send(message(msgVerdict, 0, q.number,
		attribute{attrVerdictHeader, number(verdictRepeat, p.id)}, attribute{attrMark, number(q.passed)}))
}

// send does not fail in a way that anything can be done about: what gets no verdict is dropped when the socket closes.
func (q *queue) send(m []byte) {
	_ = q.conn.Write(func(fd uintptr) bool {
		err := unix.Sendto(int(fd), m, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		return !errors.Is(err, unix.EAGAIN)
	})
}

// release everything that waits, and from now on all that comes.
func (q *queue) release() {
	q.mu.Lock()
	q.open = true
	all := q.waiting.end()
	q.mu.Unlock()
	for i, p := range all {
		if i > 0 && i%releaseAtOnce == 0 {
			time.Sleep(releasePause)
		}
		q.let(p)
	}
}

// Close the queue, after the rules are gone. What is in it and has no verdict is dropped.
func (q *queue) Close() error {
	err := q.socket.SetReadDeadline(time.Now().Add(drain))
	if err != nil {
		err = errors.Join(err, q.socket.Close()) // ends the read as well
	}
	<-q.done
	q.mu.Lock()
	defer q.mu.Unlock()
	q.lost, q.lostFinal = q.readLost(), true
	if err = errors.Join(err, q.socket.Close(), q.kernel.Close()); err != nil {
		return fmt.Errorf("closing the packet queue: %w", err)
	}
	return nil
}

func (q *queue) counts() (held, dropped uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	lost := q.lost
	if !q.lostFinal {
		lost = q.readLost()
	}
	return q.waiting.held, q.waiting.dropped + lost
}

// readLost counts what the kernel dropped because the queue or the socket's buffer was full. Lines of the file read:
// number, port, length, copy mode, copy range, dropped, dropped at the socket, last id, 1.
func (q *queue) readLost() uint64 {
	b := make([]byte, 64<<10)
	n, _ := q.kernel.ReadAt(b, 0)
	for line := range strings.Lines(string(b[:n])) {
		f := strings.Fields(line)
		if len(f) < 7 || f[0] != strconv.Itoa(int(q.number)) {
			continue
		}
		queue, _ := strconv.ParseUint(f[5], 10, 64)
		socket, _ := strconv.ParseUint(f[6], 10, 64)
		return queue + socket
	}
	return 0
}
