// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/hint"
)

// Supported tries all of it on sockets of our own, in a network namespace that is gone afterwards: nil, or the reason.
// It wraps ErrUnsupported when the answer is no, and not when it could not be told.
func Supported() error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with its namespace
		done <- rehearse()
	}()
	if err := <-done; err != nil {
		return hint.Add(fmt.Errorf("rehearse the move of a listening socket: %w", err),
			"Linux 6.1 or newer has all that it takes, with root, cgroup v2 mounted and BPF not locked down; services are renewed by other ways without it")
	}
	return nil
}

// rehearse a move between two sockets of this process.
func rehearse() error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("%w: make a network namespace: %w", ErrUnsupported, err)
	}
	if err := loopbackUp(); err != nil {
		return err
	}
	ns, err := openNetNS("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer ns.Close()
	first, err := plainListener(0)
	if err != nil {
		return err
	}
	defer first.Close()
	line, err := Form(ns, first)
	if err != nil {
		return err
	}
	return errors.Join(move(ns, line, first), line.Close())
}

func move(ns *NetNS, line *Line, first *Listeners) error {
	if err := line.Hold(); err != nil {
		return err
	}
	port := first.Ports()[0]
	client, err := connect(port)
	if err != nil {
		return fmt.Errorf("%w: connect to a held port: %w", ErrUnsupported, err)
	}
	defer unix.Close(client)
	share, err := Share(ns, first.Ports())
	if err != nil {
		return err
	}
	defer share.Close()
	second, err := plainListener(port.Port())
	if err != nil {
		return fmt.Errorf("%w: a program at bind cannot set socket options (Linux 6.1 can): %w", ErrUnsupported, err)
	}
	defer second.Close()
	if err := line.Admit(second); err != nil {
		return err
	}
	if err := line.Turn(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := line.Release(ctx); err != nil {
		return err
	}
	waiting, err := Waiting(second)
	if err == nil && waiting != 1 {
		err = fmt.Errorf("%w: a waiting connection did not migrate", ErrUnsupported)
	}
	return err
}

// plainListener without any option, as a service that knows nothing of us.
func plainListener(port uint16) (*Listeners, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	l := &Listeners{}
	if err = unix.Bind(fd, &unix.SockaddrInet4{Port: int(port), Addr: [4]byte{127, 0, 0, 1}}); err == nil {
		err = unix.Listen(fd, 1)
	}
	var stat unix.Stat_t
	if err == nil {
		err = unix.Fstat(fd, &stat)
	}
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return l, l.add(stat.Ino, fd)
}

// connect returns when the kernel has established it, which is before anybody accepts.
func connect(to netip.AddrPort) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	timeout := unix.Timeval{Sec: 1}
	err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &timeout)
	if err == nil {
		err = unix.Connect(fd, sockaddr(unix.AF_INET, to))
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// loopbackUp in the namespace of the thread, a new one.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCSIFFLAGS, uintptr(unsafe.Pointer(request))); errno != 0 {
		return fmt.Errorf("set the loopback device up: %w", errno)
	}
	return nil
}
