// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/hint"
)

const probeWithin = 10 * time.Second

// Supported tells how connections would be kept waiting here. It finds out by keeping one waiting, in a network
// namespace made for that: nothing of the host's is touched.
func Supported() (how string, err error) {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends here, and its network namespace with it
		var err error
		how, err = probe(attempts())
		done <- err
	}()
	if err = <-done; err != nil {
		return "", fmt.Errorf("keeping a connection waiting: %w", err)
	}
	return how, nil
}

func probe(attempts []attempt) (string, error) {
	if len(attempts) == 0 {
		return "", errNoTool
	}
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return "", hint.Add(fmt.Errorf("making a network namespace: %w", err), "this needs root")
	}
	if err := raiseLoopback(); err != nil {
		return "", err
	}
	var failed []error
	for _, a := range attempts {
		how := "packet queue (" + a.fence.name() + ")"
		if !a.queues {
			how = "no packet queue: first packets are dropped, clients send them again after a second (" + a.fence.name() + ")"
		}
		err := tryOne(a)
		if err == nil {
			return how, nil
		}
		failed = append(failed, fmt.Errorf("%s: %w", a.fence.name(), err))
	}
	return "", errors.Join(failed...)
}

// tryOne shuts a gate, knocks, and opens it.
func tryOne(a attempt) error {
	ctx, cancel := context.WithTimeout(context.Background(), probeWithin)
	defer cancel()
	listener, port, err := listen()
	if err != nil {
		return err
	}
	defer unix.Close(listener)
	g, err := shut(ctx, []Destination{{netip.AddrFrom4([4]byte{127, 0, 0, 1}), port}}, []attempt{a})
	if err != nil {
		return err
	}
	client, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return errors.Join(err, g.Open())
	}
	defer unix.Close(client)
	if err := errors.Join(knock(ctx, g, client, port), g.Open()); err != nil {
		return err
	}
	if !a.queues {
		return nil
	}
	// The held one has gone on by now: the loopback interface is as quick as the verdict.
	fds := []unix.PollFd{{Fd: int32(listener), Events: unix.POLLIN}}
	if n, err := unix.Poll(fds, 5000); err != nil || n == 0 {
		return errors.Join(errors.New("what was held did not go on"), err)
	}
	return nil
}

// knock at the gate and see that it is shut.
func knock(ctx context.Context, g *Gate, client int, port uint16) error {
	if err := unix.Connect(client, loopback(port)); !errors.Is(err, unix.EINPROGRESS) {
		return fmt.Errorf("a connection was not kept waiting: connect gives %v", err)
	}
	for {
		if held, dropped := g.Waited(); held > 0 || dropped > 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.New("a connection was not kept waiting")
		case <-time.After(time.Millisecond):
		}
	}
}

func loopback(port uint16) *unix.SockaddrInet4 {
	return &unix.SockaddrInet4{Port: int(port), Addr: [4]byte{127, 0, 0, 1}}
}

func listen() (fd int, port uint16, err error) {
	fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, 0, fmt.Errorf("listening: %w", err)
	}
	err = unix.Bind(fd, loopback(0))
	if err == nil {
		err = unix.Listen(fd, 1)
	}
	var bound unix.Sockaddr
	if err == nil {
		bound, err = unix.Getsockname(fd)
	}
	if err != nil {
		unix.Close(fd)
		return -1, 0, fmt.Errorf("listening: %w", err)
	}
	return fd, uint16(bound.(*unix.SockaddrInet4).Port), nil
}

// raiseLoopback of a new network namespace, where it is down.
func raiseLoopback() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("raising the loopback interface: %w", err)
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return fmt.Errorf("raising the loopback interface: %w", err)
	}
	request.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request); err != nil {
		return fmt.Errorf("raising the loopback interface: %w", err)
	}
	return nil
}
