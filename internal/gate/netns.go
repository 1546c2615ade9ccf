// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// netns is a network namespace that stays reachable from any goroutine: a gate is opened by another one than shut it.
type netns struct{ file *os.File }

func currentNetNS() (*netns, error) {
	f, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, fmt.Errorf("opening the network namespace: %w", err)
	}
	return &netns{f}, nil
}

func (n *netns) Close() error { return n.file.Close() }

// do f in the namespace, and in a thread that stays there: what f starts is there too.
func (n *netns) do(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		moved, err := n.enter()
		if err == nil {
			err = f()
		}
		if !moved {
			runtime.UnlockOSThread()
		} // else the thread ends with the goroutine: it belongs to another namespace than its siblings
		done <- err
	}()
	return <-done
}

func (n *netns) enter() (moved bool, err error) {
	var here, there unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &here); err != nil {
		return false, fmt.Errorf("reading the network namespace: %w", err)
	}
	if err := unix.Fstat(int(n.file.Fd()), &there); err != nil {
		return false, fmt.Errorf("reading the network namespace: %w", err)
	}
	if here.Ino == there.Ino && here.Dev == there.Dev {
		return false, nil
	}
	if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
		return false, fmt.Errorf("entering the network namespace: %w", err)
	}
	return true, nil
}

// lockFile orders what the processes of this host do to rules: listing and removing them are two steps.
const lockFile = "/run/whittle-gate.lock"

func lock(ctx context.Context) (unlock func(), err error) {
	f, err := os.OpenFile(lockFile, os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking the rules: %w", err)
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return nil, errors.Join(fmt.Errorf("locking the rules: %w", err), f.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("locking the rules: %w", ctx.Err()), f.Close())
		case <-time.After(5 * time.Millisecond):
		}
	}
}
