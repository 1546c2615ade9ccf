// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// dial the successor: the connection's source is bound, and told to the program, before it is made. The thread is in the
// group's namespace; the standard library dials a single address in the thread that asks.
func (g *group) dial(ctx context.Context) (net.Conn, error) {
	to := g.target()
	told := false
	dialer := net.Dialer{ControlContext: func(_ context.Context, _, _ string, raw syscall.RawConn) error {
		var failed error
		err := raw.Control(func(fd uintptr) {
			from, err := bindSource(int(fd), to)
			if err == nil {
				told = true
				err = g.knock(from)
			}
			failed = err
		})
		return errors.Join(err, failed)
	}}
	dialer.SetMultipathTCP(false)
	conn, err := dialer.DialContext(ctx, "tcp", to.String())
	if told {
		err = errors.Join(err, g.quiet())
	}
	if err != nil {
		if conn != nil {
			conn.Close()
		}
		return nil, err
	}
	return conn, nil
}

// target is an address by which the group is reached from its own namespace.
func (g *group) target() netip.AddrPort {
	addr := g.local.Addr().Unmap()
	if addr.IsUnspecified() {
		if addr.Is4() || !g.only6 {
			addr = netip.AddrFrom4([4]byte{127, 0, 0, 1})
		} else {
			addr = netip.IPv6Loopback()
		}
	}
	return netip.AddrPortFrom(addr, g.local.Port())
}

// bindSource binds to a port that nobody else has, and to the address that is called: both are local.
func bindSource(fd int, to netip.AddrPort) (netip.AddrPort, error) {
	family := unix.AF_INET
	if to.Addr().Is6() {
		family = unix.AF_INET6
	}
	if err := unix.Bind(fd, sockaddr(family, netip.AddrPortFrom(to.Addr(), 0))); err != nil {
		return netip.AddrPort{}, err
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return netip.AddrPort{}, err
	}
	from, err := addrPort(name)
	return netip.AddrPortFrom(from.Addr().WithZone(""), from.Port()), err
}
