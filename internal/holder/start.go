// SPDX-License-Identifier: Apache-2.0

package holder

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// How long Start waits for a holder, and for one that systemd starts again.
const (
	startTime   = 10 * time.Second
	systemdTime = 5 * time.Second
	againTime   = 3 * time.Second
	tryAgain    = 20 * time.Millisecond
)

// Start connects to the holder that runs, or starts `exe holder …` and connects to it. That process has a session of its own
// and is not the caller's child: it survives the caller. When two start one at once, one of the two holders ends at once.
// Where the last holder was a service of systemd, that has some seconds to bring it back.
func Start(ctx context.Context, exe string, c Config) (*Client, error) {
	c = c.defaults()
	ctx, cancel := context.WithTimeout(ctx, startTime+systemdTime)
	defer cancel()
	if client, err := Dial(ctx, c.Control); err == nil {
		return client, nil
	}
	if systemdHad(c.Control) {
		wait, stop := context.WithTimeout(ctx, systemdTime)
		client, err := dialUntil(wait, c.Control)
		stop()
		if err == nil {
			return client, nil
		}
	}
	for {
		if err := spawn(ctx, exe, c); err != nil {
			return nil, err
		}
		// Again after a while: an old holder that was about to end may have turned the new one away.
		wait, stop := context.WithTimeout(ctx, againTime)
		client, err := dialUntil(wait, c.Control)
		stop()
		if err == nil {
			return client, nil
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("start the holder: %w; it may have said why in %s", err, logFile(c.Control))
		}
	}
}

func spawn(ctx context.Context, exe string, c Config) error {
	cmd := exec.CommandContext(ctx, exe, append([]string{"holder", "--detach"}, c.Args()...)...)
	cmd.Env = ownEnv()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("start the holder: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// Args of `whittle holder` for this configuration.
func (c Config) Args() []string {
	c = c.defaults()
	return []string{"--control", c.Control, "--listener", c.Listener, "--group", c.Group, "--wait", c.Wait.String(), "--linger", c.Linger.String()}
}

func dialUntil(ctx context.Context, control string) (*Client, error) {
	for {
		client, err := Dial(ctx, control)
		if err == nil {
			return client, nil
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(err, ctx.Err())
		case <-time.After(tryAgain):
		}
	}
}

// systemdHad tells whether the holder that has, or had, the lock was a service of systemd.
func systemdHad(control string) bool {
	f, err := os.OpenFile(control+".lock", os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	_, bySystemd := readLock(f)
	return bySystemd
}

// ownEnv is without what a service manager says to the agent alone.
func ownEnv() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, notifyVar+"=") || strings.HasPrefix(v, "LISTEN_") || strings.HasPrefix(v, "WATCHDOG_")
	})
}

func logFile(control string) string { return control + ".log" }

// Detach starts `exe holder …` in a session of its own, with a log beside the socket, and does not wait for it. The caller
// ends then, so that the holder is nobody's child: an agent need not reap it, nor see it die.
func Detach(exe string, c Config) error {
	c = c.defaults()
	// Not the caller's stderr: a write to a pipe that nobody reads any more would end the holder.
	log, err := os.OpenFile(logFile(c.Control), os.O_CREATE|os.O_WRONLY|os.O_APPEND|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("open the holder's log: %w", err)
	}
	defer log.Close()
	cmd := exec.Command(exe, append([]string{"holder"}, c.Args()...)...)
	cmd.Dir, cmd.Env = "/", ownEnv()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the holder: %w", err)
	}
	return cmd.Process.Release()
}
