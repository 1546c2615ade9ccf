// SPDX-License-Identifier: Apache-2.0

// Package traffic moves new TCP connections from the listening sockets of one process to those of another, in one network
// namespace, so that none is refused. It starts and ends no process, and decides nothing about when to move.
//
// The sockets of the owner (who serves), of the successor, and one of ours on the same address form a SO_REUSEPORT group.
// A BPF program of the group says which of them gets each new connection. In ours nobody accepts: what arrives there is
// established and waits. When a socket of the group closes, the kernel moves what waits in it to another.
package traffic

import "errors"

// ErrUnsupported is returned, wrapped with the reason, when this kernel cannot do it.
var ErrUnsupported = errors.New("this kernel cannot move listening sockets")

// Unmovable is what a renewal would interrupt.
type Unmovable struct {
	Kind string // "udp socket", "unix socket", "sctp socket"
	Name string // its address or path
	Why  string
}

// side of a group: whose sockets.
type side int

const (
	owner side = iota
	ours
	successor
)
