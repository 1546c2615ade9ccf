// SPDX-License-Identifier: Apache-2.0

// Package traffic moves new TCP connections from the listening sockets of one process to those of another, in one network
// namespace, so that none is refused. It starts and ends no process, and decides nothing about when to move.
package traffic

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
)

// ErrUnsupported is returned, wrapped with the reason, when this kernel cannot do it.
var ErrUnsupported = errors.New("this kernel cannot move listening sockets")

var errSkeleton = errors.New("not written yet")

// NetNS is a network namespace that is kept open.
type NetNS struct{ id uint64 }

// OpenNetNS of a process.
func OpenNetNS(pid int) (*NetNS, error) { return nil, errSkeleton }

// Close lets go of the namespace.
func (n *NetNS) Close() error { return nil }

// ID is the inode of the namespace.
func (n *NetNS) ID() uint64 { return n.id }

// Do runs f in a thread that is in the namespace.
func (n *NetNS) Do(f func() error) error { return errSkeleton }

// Unmovable is what a renewal would interrupt.
type Unmovable struct {
	Kind string // "udp socket", "unix socket" …
	Name string // its address or path
	Why  string
}

// Listeners are listening TCP sockets of other processes, held by descriptors of our own.
type Listeners struct{}

// ListenersOf the processes in the namespace: one for each socket, not for each descriptor.
func ListenersOf(pids []int, ns *NetNS) (*Listeners, []Unmovable, error) {
	return nil, nil, errSkeleton
}

// Close our descriptors. A socket whose last descriptor is ours ends with it.
func (l *Listeners) Close() error { return nil }

// Ports are the addresses, sorted, each once.
func (l *Listeners) Ports() []netip.AddrPort { return nil }

// Len is the number of sockets.
func (l *Listeners) Len() int { return 0 }

// Waiting is the number of connections in the accept queues.
func Waiting(l *Listeners) (int, error) { return 0, errSkeleton }

// Share lets sockets of the namespace bind these ports beside another's, while it is open.
func Share(ns *NetNS, ports []netip.AddrPort) (io.Closer, error) { return nil, errSkeleton }

// Line is where new connections of a service wait or go.
type Line struct{}

// Form takes over the steering of the owner's sockets; new connections still go to the owner.
func Form(ns *NetNS, owner *Listeners) (*Line, error) { return nil, errSkeleton }

// Hold makes new connections wait in our sockets.
func (l *Line) Hold() error { return errSkeleton }

// Admit the successor's sockets, which joined ours: knocks go to them, nothing else yet.
func (l *Line) Admit(next *Listeners) error { return errSkeleton }

// Knock is a connection that only the admitted successor gets.
func (l *Line) Knock(ctx context.Context, port netip.AddrPort) (net.Conn, error) {
	return nil, errSkeleton
}

// Turn makes new connections go to the admitted.
func (l *Line) Turn() error { return errSkeleton }

// Return makes new connections go to the owner again.
func (l *Line) Return() error { return errSkeleton }

// Release hands what waits in our sockets to those that new connections go to, and ends the steering.
func (l *Line) Release(ctx context.Context) error { return errSkeleton }

// Close abandons the line: as Release, without anybody to hand it to but the owner.
func (l *Line) Close() error { return nil }

// Supported says why this kernel cannot do it, or nil.
func Supported() error { return errSkeleton }
