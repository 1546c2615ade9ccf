// SPDX-License-Identifier: Apache-2.0

package inject

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sys/unix"
)

// conn is one end of a SOCK_SEQPACKET pair between the caller, the guardian and the tracer. Several processes may send at
// one end: packets do not mix. It is a plain descriptor, because the tracer's thread has a file table of its own.
type conn int

const (
	maxPacket  = 64 << 10
	maxPayload = 64 << 20 // of a memfd
	maxFDs     = 8
)

type kind string

const (
	// From the caller, or the guardian, to a helper. The payload is in the first descriptor.
	kindGuard   kind = "guard"   // request, journal, guard's read end, its write end
	kindTrace   kind = "trace"   // the same, and the caller's connection
	kindRecover kind = "recover" // request, journal
	kindAttest  kind = "attest"  // pids
	kindKick    kind = "kick"    // tids
	// To the caller.
	kindListener kind = "listener" // with the descriptor
	kindProcess  kind = "process"
	kindProblem  kind = "problem"
	kindDone     kind = "done"
	kindAttested kind = "attested" // with the payload
)

// message of one packet.
type message struct {
	Kind     kind          `json:"kind"`
	Caller   int           `json:"caller,omitempty"`
	PID      int           `json:"pid,omitempty"`
	TID      int           `json:"tid,omitempty"`
	Process  *Process      `json:"process,omitempty"`
	Frozen   time.Duration `json:"frozen,omitempty"`
	Passes   int           `json:"passes,omitempty"`
	Problems []string      `json:"problems,omitempty"`
	Text     string        `json:"text,omitempty"`
	Err      string        `json:"err,omitempty"`
}

func newPair() (a, b conn, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, -1, fmt.Errorf("make a socket pair: %w", err)
	}
	return conn(fds[0]), conn(fds[1]), nil
}

func (c conn) send(m message, fds ...int) error {
	packet, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode a message: %w", err)
	}
	if len(packet) > maxPacket {
		return fmt.Errorf("send a message of %d bytes: at most %d", len(packet), maxPacket)
	}
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	for {
		err := unix.Sendmsg(int(c), packet, rights, nil, unix.MSG_NOSIGNAL)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("send a message: %w", err)
		}
		return nil
	}
}

// receive a message; io.EOF when nobody is left to send one. The descriptors are the receiver's.
func (c conn) receive() (m message, fds []int, err error) {
	packet := make([]byte, maxPacket)
	rights := make([]byte, unix.CmsgSpace(4*maxFDs))
	var n, rn int
	for {
		n, rn, _, _, err = unix.Recvmsg(int(c), packet, rights, unix.MSG_CMSG_CLOEXEC)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if errors.Is(err, unix.ECONNRESET) {
		return m, nil, io.EOF
	}
	if err != nil {
		return m, nil, fmt.Errorf("receive a message: %w", err)
	}
	if n == 0 {
		return m, nil, io.EOF
	}
	controls, err := unix.ParseSocketControlMessage(rights[:rn])
	if err != nil {
		return m, nil, fmt.Errorf("receive a message: %w", err)
	}
	for _, control := range controls {
		if got, err := unix.ParseUnixRights(&control); err == nil {
			fds = append(fds, got...)
		}
	}
	if err := json.Unmarshal(packet[:n], &m); err != nil {
		closeAll(fds)
		return m, nil, fmt.Errorf("decode a message: %w", err)
	}
	return m, fds, nil
}

func closeAll(fds []int) {
	for _, fd := range fds {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// payload is what does not fit into a packet, in a memfd.
func newPayload(v any) (int, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return -1, fmt.Errorf("encode a request: %w", err)
	}
	fd, err := unix.MemfdCreate("whittle-inject", unix.MFD_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("keep a request: %w", err)
	}
	for at := 0; at < len(raw); {
		n, err := unix.Pwrite(fd, raw[at:], int64(at))
		if err != nil {
			unix.Close(fd)
			return -1, fmt.Errorf("keep a request: %w", err)
		}
		at += n
	}
	return fd, nil
}

func readPayload(fd int, v any) error {
	var raw []byte
	chunk := make([]byte, 1<<16)
	for {
		n, err := unix.Pread(fd, chunk, int64(len(raw)))
		if err != nil {
			return fmt.Errorf("read a request: %w", err)
		}
		if n == 0 {
			break
		}
		if raw = append(raw, chunk[:n]...); len(raw) > maxPayload {
			return fmt.Errorf("read a request: more than %d bytes", maxPayload)
		}
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return fmt.Errorf("decode a request: %w", err)
	}
	return nil
}
