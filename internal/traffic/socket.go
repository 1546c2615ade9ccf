// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strconv"

	"golang.org/x/sys/unix"
)

// address is what sockets must have in common to form one group.
type address struct {
	family  int
	only6   bool // of AF_INET6: not for IPv4
	local   netip.AddrPort
	ifindex int // of the device it is bound to, or 0
	uid     uint32
}

// socket that listens, of another process.
type socket struct {
	address
	fd        int
	inode     uint64
	mptcp     bool
	reuseport int // as its process set it
	reuseaddr int
}

// describe a listening socket.
func describe(fd int) (*socket, error) {
	s := &socket{fd: fd}
	var protocol, only6 int
	for _, o := range []struct {
		option int
		to     *int
	}{
		{unix.SO_DOMAIN, &s.family}, {unix.SO_PROTOCOL, &protocol}, {unix.SO_REUSEPORT, &s.reuseport},
		{unix.SO_REUSEADDR, &s.reuseaddr}, {unix.SO_BINDTOIFINDEX, &s.ifindex},
	} {
		var err error
		if *o.to, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, o.option); err != nil {
			return nil, fmt.Errorf("ask for an option of a listening socket: %w", err)
		}
	}
	s.mptcp = protocol == unix.IPPROTO_MPTCP
	if s.mptcp {
		// An MPTCP socket keeps what it was told; what counts is what its first subflow, a TCP socket, has.
		s.ifindex = max(s.ifindex, 0)
	}
	if s.family == unix.AF_INET6 {
		var err error
		if only6, err = unix.GetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY); err != nil {
			return nil, fmt.Errorf("ask for an option of a listening socket: %w", err)
		}
		s.only6 = only6 != 0
	}
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return nil, fmt.Errorf("ask whose a listening socket is: %w", err)
	}
	s.uid = stat.Uid
	name, err := unix.Getsockname(fd)
	if err != nil {
		return nil, fmt.Errorf("ask for the address of a listening socket: %w", err)
	}
	s.local, err = addrPort(name)
	return s, err
}

func addrPort(name unix.Sockaddr) (netip.AddrPort, error) {
	switch a := name.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port)), nil
	case *unix.SockaddrInet6:
		addr := netip.AddrFrom16(a.Addr)
		if a.ZoneId != 0 {
			addr = addr.WithZone(strconv.FormatUint(uint64(a.ZoneId), 10))
		}
		return netip.AddrPortFrom(addr, uint16(a.Port)), nil
	}
	return netip.AddrPort{}, fmt.Errorf("a listening socket has an address of another kind: %T", name)
}

// sockaddr of a socket of this family.
func sockaddr(family int, at netip.AddrPort) unix.Sockaddr {
	if family == unix.AF_INET {
		return &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}
	}
	zone, _ := strconv.ParseUint(at.Addr().Zone(), 10, 32) // written by addrPort; empty is 0
	return &unix.SockaddrInet6{Port: int(at.Port()), Addr: at.Addr().As16(), ZoneId: uint32(zone)}
}

// shown is the address as a person writes it.
func (a address) shown() netip.AddrPort {
	return netip.AddrPortFrom(a.local.Addr().Unmap(), a.local.Port())
}

// queued is the number of connections in the accept queue, which TCP_INFO of a socket that listens has in a field that
// means something else otherwise.
func (s *socket) queued() (int, error) { return queued(s.fd) }

func queued(fd int) (int, error) {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return 0, fmt.Errorf("ask how many connections wait: %w", err)
	}
	return int(info.Unacked), nil
}

// wake whoever sleeps on the socket, by poll, epoll (edge-triggered too), accept or io_uring: not every kernel does when it
// moves connections into its queue (inet_csk_listen_stop called no sk_data_ready; on 6.18.44 they are woken). Shutting
// down the sending side of a socket that listens changes nothing in it, but inet_shutdown ends with sk_state_change, for
// all who wait. Unlike a connection of ours it needs no room in the queue, and the service has nothing to accept and to log.
func (s *socket) wake() error {
	if err := unix.Shutdown(s.fd, unix.SHUT_WR); err != nil && !errors.Is(err, unix.ENOTCONN) {
		return fmt.Errorf("wake who waits at %s: %w", s.shown(), err) // ENOTCONN: it no longer listens
	}
	return nil
}

// listen at the address with a socket of ours that joins the group; the thread is in its namespace. What clients see of
// the connections that wait in it is as with the socket that it takes its options from.
func (a address) listen(like int) (fd int, err error) {
	if fd, err = unix.Socket(a.family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP); err != nil {
		return -1, fmt.Errorf("open a socket: %w", err)
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
			fd = -1
		}
	}()
	// A group is of one user's sockets. fchown changes a socket's user too (sockfs_setattr).
	if err := unix.Fchown(fd, int(a.uid), -1); err != nil {
		return fd, fmt.Errorf("give a socket to user %d: %w", a.uid, err)
	}
	options := [][3]int{
		{unix.SOL_SOCKET, unix.SO_REUSEPORT, 1}, {unix.SOL_SOCKET, unix.SO_REUSEADDR, 1},
		{unix.IPPROTO_IP, unix.IP_FREEBIND, 1}, // the owner's address need not be local
	}
	if a.family == unix.AF_INET6 {
		only6 := 0
		if a.only6 {
			only6 = 1
		}
		options = append(options, [3]int{unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only6})
	}
	if a.ifindex != 0 {
		options = append(options, [3]int{unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX, a.ifindex})
	}
	for _, o := range options {
		if err := unix.SetsockoptInt(fd, o[0], o[1], o[2]); err != nil {
			return fd, fmt.Errorf("set option %d of a socket: %w", o[1], err)
		}
	}
	inherit(fd, like)
	err = unix.Bind(fd, sockaddr(a.family, a.local))
	if err == nil {
		err = unix.Listen(fd, math.MaxUint16) // the kernel takes net.core.somaxconn when that is less
	}
	if err != nil {
		return fd, fmt.Errorf("listen at %s beside the service: %w", a.shown(), explainBind(err))
	}
	return fd, nil
}

func explainBind(err error) error {
	if errors.Is(err, unix.EADDRINUSE) {
		return fmt.Errorf("%w: earlier connections of a service that does not set SO_REUSEADDR, or another's socket, block the address", err)
	}
	return err
}
