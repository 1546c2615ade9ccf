// SPDX-License-Identifier: Apache-2.0

package load

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Target is where a service listens.
type Target struct {
	Addr string // "127.0.0.1:8080"; of numbers: names are not looked up in another network
	// NetNS is the network namespace of the client: a path like /proc/PID/ns/net. Empty is this process's.
	NetNS string
}

// Dial connects from the target's network namespace.
func (t Target) Dial(ctx context.Context) (conn net.Conn, err error) {
	if t.NetNS == "" {
		return t.dial(ctx)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		t.inside(func() { conn, err = t.dial(ctx) }, func(e error) { err = e })
	}()
	<-done
	return conn, err
}

// Ask once, over a connection of its own.
func (t Target) Ask(ctx context.Context, talk Talk) error {
	conn, err := t.Dial(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(answerWait)
	}
	_ = conn.SetDeadline(deadline)
	if err := talk(conn, bufio.NewReader(conn), 0); !errors.Is(err, ErrLast) {
		return err
	}
	return nil
}

// dial in the network namespace of the calling thread: a socket belongs to the one that it was made in.
func (t Target) dial(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", t.Addr)
}

// inside runs f in the network namespace. The goroutine must be f's own: its thread is not given back, for it has changed.
func (t Target) inside(f func(), failed func(error)) {
	if t.NetNS == "" {
		f()
		return
	}
	runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
	ns, err := os.Open(t.NetNS)
	if err != nil {
		failed(fmt.Errorf("enter the service's network: %w", err))
		return
	}
	err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
	ns.Close()
	if err != nil {
		failed(fmt.Errorf("enter the service's network: %w", err))
		return
	}
	f()
}

// gone tells that the service closed the connection before it answered anything.
func gone(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE)
}
