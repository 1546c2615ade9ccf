// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"
)

// manager that was told something.
func manager(t *testing.T) (*net.UnixConn, func() string) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	t.Setenv("NOTIFY_SOCKET", name)
	return conn, func() string {
		t.Helper()
		buf := make([]byte, 256)
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		return string(buf[:n])
	}
}

func TestServiceManager(t *testing.T) {
	_, told := manager(t)
	t.Setenv("WATCHDOG_USEC", "3000")
	m := managerFromEnvironment(slog.New(slog.DiscardHandler))
	if again := managerFromEnvironment(m.log); again.socket != "" || again.every != 0 {
		t.Errorf("what the agent starts would talk to its manager: %+v", again)
	}
	var hangs atomic.Bool
	var asked atomic.Int64
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.watch(ctx, func(context.Context) error {
			asked.Add(1)
			if hangs.Load() || asked.Load() == 1 {
				return errors.New("not yet, or no longer")
			}
			return nil
		})
	}()
	if got := told(); got != "READY=1\nWATCHDOG=1" {
		t.Errorf("first: %q", got)
	}
	if asked.Load() < 2 {
		t.Error("ready before it worked")
	}
	if got := told(); got != "WATCHDOG=1" {
		t.Errorf("then: %q", got)
	}
	// One that hangs says nothing more, until it ends.
	hangs.Store(true)
	for n := asked.Load(); asked.Load() < n+3; {
		if n == 0 {
			t.Fatal("never asked")
		}
	}
	cancel()
	<-done
	last := ""
	for last != "STOPPING=1" {
		if last = told(); last != "STOPPING=1" && last != "WATCHDOG=1" {
			t.Fatalf("last: %q", last)
		}
	}
}

func TestNoServiceManager(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	managerFromEnvironment(slog.New(slog.DiscardHandler)).watch(t.Context(), func(context.Context) error {
		t.Error("asked for nobody")
		return nil
	})
}
