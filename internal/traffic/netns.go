// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// NetNS is a network namespace that is kept open.
type NetNS struct {
	file   *os.File
	inode  uint64
	cookie uint64 // as sockets and BPF programs tell it; never used twice, other than the inode
}

// OpenNetNS of a process.
func OpenNetNS(pid int) (*NetNS, error) {
	return openNetNS(fmt.Sprintf("/proc/%d/ns/net", pid))
}

func openNetNS(path string) (*NetNS, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open a network namespace: %w", err)
	}
	n := &NetNS{file: file}
	if err := n.identify(); err != nil {
		file.Close()
		return nil, fmt.Errorf("open a network namespace: %w", err)
	}
	return n, nil
}

func (n *NetNS) identify() error {
	var stat unix.Stat_t
	if err := unix.Fstat(int(n.file.Fd()), &stat); err != nil {
		return err
	}
	n.inode = stat.Ino
	return n.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if n.cookie, err = unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE); err != nil {
			return fmt.Errorf("%w: it does not tell a socket's network namespace (Linux 5.14 does): %w", ErrUnsupported, err)
		}
		return nil
	})
}

// Close lets go of the namespace.
func (n *NetNS) Close() error { return n.file.Close() }

// ID is the inode of the namespace.
func (n *NetNS) ID() uint64 { return n.inode }

func (n *NetNS) dup() (*NetNS, error) {
	fd, err := unix.FcntlInt(n.file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return &NetNS{file: os.NewFile(uintptr(fd), n.file.Name()), inode: n.inode, cookie: n.cookie}, nil
}

// Do runs f in a thread that is in the namespace, and waits for it. What f starts runs elsewhere.
func (n *NetNS) Do(f func() error) error {
	done := make(chan error, 1)
	go func() { done <- n.inThread(f) }()
	return <-done
}

func (n *NetNS) inThread(f func() error) error {
	runtime.LockOSThread()
	// /proc/self is the main thread, which need not be where this one is.
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("open the own network namespace: %w", err)
	}
	defer home.Close()
	if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter a network namespace: %w", err)
	}
	err = f()
	// A thread that cannot return stays locked, so that it ends with this goroutine.
	if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
		runtime.UnlockOSThread()
	}
	return err
}
