// SPDX-License-Identifier: Apache-2.0

package holder

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// The agent and the holder talk over a SOCK_SEQPACKET socket: a message is one packet, which the kernel neither joins nor
// cuts, with at most one descriptor.
const protocolVersion = 1

// maxMessage is above what the limits of state.go can add up to once JSON has escaped it, and below the socket's buffer.
const maxMessage = 128 << 10

// What messages say. The agent says hello, keep, drop, told and bye; the holder the rest.
const (
	opHello    = "hello"    // first; makes its sender the agent
	opGreeting = "greeting" // how many agents there were, how the last one went
	opRefused  = "refused"  // some of the counts
	opKept     = "kept"     // + fd: a listener
	opReady    = "ready"    // all that was kept has been sent; what follows is new
	opKeep     = "keep"     // + fd
	opDrop     = "drop"
	opDone     = "done" // answers keep and drop, by seq
	opTold     = "told" // the agent has the counts: forget them
	opReplaced = "replaced"
	opBye      = "bye"
)

type message struct {
	Op      string    `json:"op"`
	Version int       `json:"version,omitempty"`
	Seq     uint64    `json:"seq,omitempty"`
	ID      uint64    `json:"id,omitempty"`
	Error   string    `json:"error,omitempty"`
	Agents  int       `json:"agents,omitempty"`
	Unclean bool      `json:"unclean,omitempty"`
	Kept    *Kept     `json:"kept,omitempty"`
	Refused []Refused `json:"refused,omitempty"`
}

// encode without HTML escapes, which would make six bytes of one.
func encode(v any) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("encode a message: %w", err)
	}
	if buf.Len() > maxMessage {
		return nil, fmt.Errorf("encode a message: %d bytes are more than %d", buf.Len(), maxMessage)
	}
	return buf.Bytes(), nil
}

// send one message with a duplicate of fd, or with none if fd is negative.
func send(socket int, m message, fd int) error {
	data, err := encode(m)
	if err != nil {
		return err
	}
	var oob []byte
	if fd >= 0 {
		oob = unix.UnixRights(fd)
	}
	return unix.Sendmsg(socket, data, oob, nil, unix.MSG_NOSIGNAL)
}

// errManyFDs says that a packet carried more descriptors than it may.
var errManyFDs = errors.New("more than one descriptor")

// receive into buf, with at most one descriptor, which the caller owns; -1 is none. Two or more are closed and are an
// errManyFDs: there is room for two, and the kernel keeps the rest to itself.
func receive(socket int, buf []byte) (n, fd int, err error) {
	oob := make([]byte, unix.CmsgSpace(2*4))
	n, oobn, flags, _, err := unix.Recvmsg(socket, buf, oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return 0, -1, err
	}
	var fds []int
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return 0, -1, fmt.Errorf("read a control message: %w", err)
	}
	for _, m := range messages {
		if rights, err := unix.ParseUnixRights(&m); err == nil {
			fds = append(fds, rights...)
		}
	}
	if len(fds) > 1 || flags&unix.MSG_CTRUNC != 0 {
		for _, fd := range fds {
			closeStranger(fd)
		}
		return n, -1, errManyFDs
	}
	if flags&unix.MSG_TRUNC != 0 {
		for _, fd := range fds {
			closeStranger(fd)
		}
		return n, -1, unix.EMSGSIZE
	}
	if len(fds) == 1 {
		return n, fds[0], nil
	}
	return n, -1, nil
}

// closeStranger closes a descriptor of unknown kind. close(2) of a file of FUSE waits for its server, which may be the
// peer that sent it: so nobody waits here.
func closeStranger(fd int) {
	if fd < 0 {
		return
	}
	strangers.Add(1)
	go func() {
		defer strangers.Add(-1)
		unix.Close(fd)
	}()
}
