// SPDX-License-Identifier: Apache-2.0

package api

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"time"

	"github.com/whittle-sec/whittle/internal/hint"
	"golang.org/x/sys/unix"
)

// ErrRunning is returned, wrapped with its pid, when another agent answers at the socket.
var ErrRunning = errors.New("another agent is running")

// Running is the error of a second agent.
func Running(pid int) error {
	err := fmt.Errorf("%w, with pid %d", ErrRunning, pid)
	return hint.Add(err, "stop it, or give this one a place of its own: whittle agent --state DIR --socket PATH")
}

// Listen at a unix socket with mode 0660, owned by root and the group "whittle" where that exists. The socket file of a
// dead agent is replaced.
func Listen(path string) (*net.UnixListener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("make the socket's directory: %w", err)
	}
	unlock, err := lockSocket(path)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := removeStale(path); err != nil {
		return nil, err
	}
	// With the umask the socket is never open to more than its owner, not even until the chmod below.
	old := unix.Umask(0o177)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	unix.Umask(old)
	if err != nil {
		return nil, hint.Add(fmt.Errorf("listen at %s: %w", path, err), "choose another place with --socket PATH")
	}
	if err := giveToGroup(path); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// lockSocket keeps two agents that start at the same moment from removing each other's socket.
func lockSocket(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the socket's lock: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock the socket: %w", err)
	}
	return func() { f.Close() }, nil
}

// removeStale removes a socket that nobody listens at, and nothing else.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at the socket: %w", err)
	}
	if info.Mode().Type() != os.ModeSocket {
		return hint.Add(fmt.Errorf("%s is not a socket", path), "choose another place with --socket PATH")
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		defer conn.Close()
		peer, err := peerOf(conn.(*net.UnixConn))
		if err != nil {
			return fmt.Errorf("%w: %w", ErrRunning, err)
		}
		return Running(peer.PID)
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("ask who listens at %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("remove a dead agent's socket: %w", err)
	}
	return nil
}

func giveToGroup(path string) error {
	if g, err := user.LookupGroup(Group); err == nil && os.Geteuid() == 0 {
		gid, err := strconv.Atoi(g.Gid)
		if err != nil {
			return fmt.Errorf("read the id of group %s: %w", Group, err)
		}
		if err := os.Lchown(path, 0, gid); err != nil {
			return fmt.Errorf("give the socket to group %s: %w", Group, err)
		}
	}
	if err := os.Chmod(path, 0o660); err != nil {
		return fmt.Errorf("open the socket to group %s: %w", Group, err)
	}
	return nil
}
