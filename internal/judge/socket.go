// SPDX-License-Identifier: Apache-2.0

package judge

import (
	"github.com/whittle-sec/whittle/internal/plan"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// Socket is the family of the socket that a call connects, binds or listens on. The address is in memory, where it can be
// changed; the family of a socket is the kernel's and never changes. Another thread may put another socket in its place
// while the call is held: it must have one of that family, which is asked about when it is made.
type Socket uint8

const (
	NoSocket Socket = iota // not asked, not told, or another family
	Unix
	Netlink
)

var socketWords = []string{"", "unix", "netlink"}

func (s Socket) String() string { return word(socketWords, s) }

// MarshalText is String; NoSocket is "".
func (s Socket) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText is the inverse of MarshalText. What is not known is NoSocket, which speaks for nothing.
func (s *Socket) UnmarshalText(text []byte) error {
	*s = NoSocket
	for i, name := range socketWords {
		if name == string(text) {
			*s = Socket(i)
		}
	}
	return nil
}

// OfSocket reports whether the family of the socket in a call's first argument tells what the call can do.
func OfSocket(call syscalls.Call) bool {
	switch call.String() {
	case "connect", "bind", "listen":
		return plan.Critical(call) != ""
	}
	return false
}

// localUse is what a call does that stays on this machine.
func (h *hearing) localUse() (u use, ok bool) {
	if !OfSocket(h.q.Call) {
		return u, false
	}
	switch h.e.Socket {
	case Unix:
		return use{level: Ordinary, why: "it addresses a socket between processes (AF_UNIX)"}, true
	case Netlink:
		return use{level: Ordinary, why: "it addresses a netlink socket; which kinds there may be is decided when they are made"}, true
	}
	return u, false
}
