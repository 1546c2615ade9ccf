// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/whittle-sec/whittle/internal/engine/process"
	"golang.org/x/sys/unix"
)

var selfPID = os.Getpid()

// exitWatch waits for a process by its pidfd, which the Go runtime polls: it costs no thread.
type exitWatch struct {
	file *os.File
	once sync.Once
}

// watchExit of a process. The error wraps process.ErrGone when it has exited already.
func watchExit(pid int) (*exitWatch, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if errors.Is(err, unix.ESRCH) {
		return nil, fmt.Errorf("open pidfd of %d: %w", pid, process.ErrGone)
	}
	if err != nil {
		return nil, fmt.Errorf("open pidfd of %d: %w", pid, err)
	}
	return &exitWatch{file: os.NewFile(uintptr(fd), "pidfd")}, nil
}

// wait returns true when the process has exited, false when the watch was closed first.
func (e *exitWatch) wait() bool {
	raw, err := e.file.SyscallConn()
	if err != nil {
		return false
	}
	err = raw.Read(func(fd uintptr) bool {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(poll, 0)
		return err == nil && n == 1
	})
	return err == nil
}

// close may be called several times, and by another goroutine than wait's.
func (e *exitWatch) close() {
	if e != nil {
		e.once.Do(func() { e.file.Close() })
	}
}

// awaitExit tells the owner that a container's init has exited. With its pid namespace's init every process of the
// container is gone.
func (a *Agent) awaitExit(e *exitWatch, k key) {
	defer e.close()
	if !e.wait() {
		return
	}
	// The owner may be stopping, which drains every container anyway.
	_ = a.ask(context.Background(), func(m *model) error {
		if c := m.containers[k]; c != nil && c.exit == e && !c.gone {
			m.finish(c, ending{ended: true})
		}
		return nil
	})
}
