// SPDX-License-Identifier: Apache-2.0

package services

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Listen in the container's network namespace, outside of the container.
func (i *Instance) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	if i.keeper == nil {
		return nil, errors.New("the container is gone")
	}
	type result struct {
		listener net.Listener
		err      error
	}
	done := make(chan result, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: see Dial
		ns, err := os.Open("/proc/" + i.keeper.pid() + "/ns/net")
		if err == nil {
			err = errors.Join(unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET), ns.Close())
		}
		if err != nil {
			done <- result{err: fmt.Errorf("enter the network of %s: %w", i.Name, err)}
			return
		}
		var c net.ListenConfig
		listener, err := c.Listen(ctx, network, address)
		done <- result{listener, err}
	}()
	r := <-done
	return r.listener, r.err
}

// withOrigin serves pages to a proxy, outside of the container, while f runs.
func (i *Instance) withOrigin(ctx context.Context, address string, f func() error) error {
	l, err := i.Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	body := large(2 << 20)
	server := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		w.Header().Set("Cache-Control", "public, max-age=600")
		if r.URL.Path == "/large.bin" {
			_, _ = w.Write(body)
			return
		}
		fmt.Fprintf(w, "hello from %s, %d bytes\n", r.URL.Path, n)
	})}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = server.Serve(l) }()
	err = f()
	err = errors.Join(err, server.Close())
	<-ended
	return err
}
