// SPDX-License-Identifier: Apache-2.0

package traffic

import "golang.org/x/sys/unix"

// inherited are options that a connection has from the socket that it arrived at, so that those that wait in ours are as
// those that the service accepts otherwise.
var inherited = [][2]int{
	{unix.SOL_SOCKET, unix.SO_KEEPALIVE}, {unix.SOL_SOCKET, unix.SO_OOBINLINE}, {unix.SOL_SOCKET, unix.SO_PRIORITY},
	{unix.SOL_SOCKET, unix.SO_MARK}, {unix.SOL_SOCKET, unix.SO_RCVLOWAT}, {unix.SOL_SOCKET, unix.SO_DONTROUTE},
	{unix.IPPROTO_TCP, unix.TCP_NODELAY}, {unix.IPPROTO_TCP, unix.TCP_KEEPIDLE}, {unix.IPPROTO_TCP, unix.TCP_KEEPINTVL},
	{unix.IPPROTO_TCP, unix.TCP_KEEPCNT}, {unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT}, {unix.IPPROTO_TCP, unix.TCP_SYNCNT},
	{unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT}, {unix.IPPROTO_TCP, unix.TCP_LINGER2},
	{unix.IPPROTO_IP, unix.IP_TOS}, {unix.IPPROTO_IP, unix.IP_TTL}, {unix.IPPROTO_IP, unix.IP_TRANSPARENT},
	{unix.IPPROTO_IP, unix.IP_MTU_DISCOVER},
	{unix.IPPROTO_IPV6, unix.IPV6_TCLASS}, {unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS}, {unix.IPPROTO_IPV6, unix.IPV6_TRANSPARENT},
}

// buffers are told doubled, and set by an option that no limit of the host's applies to.
var buffers = [][2]int{{unix.SO_RCVBUF, unix.SO_RCVBUFFORCE}, {unix.SO_SNDBUF, unix.SO_SNDBUFFORCE}}

// inherit the options of a socket. What cannot be read or set stays as it is: it bears on speed at most.
func inherit(fd, like int) {
	if like < 0 {
		return
	}
	for _, o := range inherited {
		have, err := unix.GetsockoptInt(fd, o[0], o[1])
		if err != nil {
			continue
		}
		if want, err := unix.GetsockoptInt(like, o[0], o[1]); err == nil && want != have {
			_ = unix.SetsockoptInt(fd, o[0], o[1], want)
		}
	}
	for _, b := range buffers {
		have, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, b[0])
		if err != nil {
			continue
		}
		if want, err := unix.GetsockoptInt(like, unix.SOL_SOCKET, b[0]); err == nil && want != have {
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, b[1], want/2)
		}
	}
	if have, err := unix.GetsockoptString(like, unix.IPPROTO_TCP, unix.TCP_CONGESTION); err == nil {
		_ = unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, have)
	}
}
