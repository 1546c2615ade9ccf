// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"net"
	"sync"
)

// peerListener accepts at most cap(slots) connections at a time, and asks the kernel who each is as it is accepted.
type peerListener struct {
	*net.UnixListener
	slots chan struct{}
}

type peerConn struct {
	*net.UnixConn
	peer    Peer
	known   bool
	release func()
}

func (l peerListener) Accept() (net.Conn, error) {
	l.slots <- struct{}{}
	conn, err := l.AcceptUnix()
	if err != nil {
		<-l.slots
		return nil, err
	}
	peer, err := peerOf(conn)
	return peerConn{
		UnixConn: conn, peer: peer, known: err == nil, // an unknown peer is refused by guard
		release: sync.OnceFunc(func() { <-l.slots }),
	}, nil
}

func (c peerConn) Close() error {
	defer c.release()
	return c.UnixConn.Close()
}

// withPeer hands the credentials of a connection, or their absence, to its requests.
func withPeer(ctx context.Context, conn net.Conn) context.Context {
	if c, ok := conn.(peerConn); ok && c.known {
		return context.WithValue(ctx, peerKey{}, c.peer)
	}
	return ctx
}
