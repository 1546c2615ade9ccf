// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"time"
)

// serviceManager is told that the agent is ready, that it still works, and that it ends (sd_notify(3)). A held call waits
// as long as an agent is connected, so one that hangs has to be killed: with WatchdogSec= systemd does that, and its
// successor answers.
type serviceManager struct {
	socket string        // "" when nobody wants to be told
	every  time.Duration // 0: no watchdog
	log    *slog.Logger
}

// managerFromEnvironment takes the variables away: they are not the holder's, which the agent may start.
func managerFromEnvironment(log *slog.Logger) serviceManager {
	m := serviceManager{socket: os.Getenv("NOTIFY_SOCKET"), log: log}
	if usec, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64); err == nil && usec > 0 {
		m.every = time.Duration(usec) * time.Microsecond / 3
	}
	if pid := os.Getenv("WATCHDOG_PID"); pid != "" && pid != strconv.Itoa(os.Getpid()) {
		m.every = 0
	}
	for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} {
		_ = os.Unsetenv(name) // it fails for malformed names only
	}
	return m
}

// watch tells the manager until ctx is done. works answers while the agent does.
func (m serviceManager) watch(ctx context.Context, works func(context.Context) error) {
	if m.socket == "" {
		return
	}
	patience := 10 * time.Second
	if m.every > 0 {
		patience = m.every
	}
	for ready := false; ctx.Err() == nil; {
		asked, cancel := context.WithTimeout(ctx, patience)
		err := works(asked)
		cancel()
		switch {
		case err != nil: // the manager hears nothing, and does what it is for
		case !ready:
			ready = true
			m.tell("READY=1\nWATCHDOG=1")
		default:
			m.tell("WATCHDOG=1")
		}
		if ready && m.every == 0 {
			<-ctx.Done()
		}
		pause := time.NewTimer(max(m.every, 10*time.Millisecond))
		select {
		case <-ctx.Done():
		case <-pause.C:
		}
		pause.Stop()
	}
	m.tell("STOPPING=1")
}

func (m serviceManager) tell(state string) {
	if err := send(m.socket, state); err != nil {
		m.log.Warn("tell the service manager", "err", err)
	}
}

// send a datagram; a socket that begins with @ is abstract.
func send(socket, state string) error {
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("connect to the service manager: %w", err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(state)); err != nil {
		return fmt.Errorf("write to the service manager: %w", err)
	}
	return nil
}
