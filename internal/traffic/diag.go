// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// listening are the TCP sockets of the thread's namespace that listen. /proc/net/tcp has them too, but to make it the
// kernel walks over all connections of the host: tens of milliseconds on one that is busy.
func listening() ([]row, error) {
	four, err := diagnose(unix.AF_INET, diagListen, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EPROTONOSUPPORT) {
		return listeningInProc() // a kernel without inet_diag
	}
	if err != nil {
		return nil, fmt.Errorf("ask which sockets listen: %w", err)
	}
	six, err := diagnose(unix.AF_INET6, diagListen, 0)
	if err != nil {
		return nil, fmt.Errorf("ask which sockets listen: %w", err)
	}
	return append(four, six...), nil
}

func listeningInProc() ([]row, error) {
	four, err := readTable("tcp", readTCP)
	if err != nil {
		return nil, err
	}
	six, err := readTable("tcp6", readTCP)
	return append(four, six...), err
}

// Of include/uapi/linux/inet_diag.h; x/sys has no such types.
const (
	diagRequestSize = unix.SizeofNlMsghdr + 56 // inet_diag_req_v2
	diagAnswerSize  = 72                       // inet_diag_msg
	diagEstablished = 1                        // TCP_ESTABLISHED
	diagListen      = 10                       // TCP_LISTEN
)

// diagnose asks for the sockets of a family that are in a state (sock_diag(7)), and have this port of their own if it is not 0.
func diagnose(family, state uint8, port uint16) ([]row, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	request := make([]byte, diagRequestSize)
	order := binary.NativeEndian
	order.PutUint32(request[0:], diagRequestSize)
	order.PutUint16(request[4:], unix.SOCK_DIAG_BY_FAMILY)
	order.PutUint16(request[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	body := request[unix.SizeofNlMsghdr:]
	body[0], body[1] = family, unix.IPPROTO_TCP
	order.PutUint32(body[4:], 1<<state)
	binary.BigEndian.PutUint16(body[8:], port)
	if err := unix.Sendto(fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, err
	}
	var out []row
	buf := make([]byte, 1<<15)
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, err
		}
		rows, done, err := parseDiag(buf[:n], family, state)
		if err != nil {
			return nil, err
		}
		if out = append(out, rows...); len(out) > maxRows {
			return nil, fmt.Errorf("more than %d sockets", maxRows)
		}
		if done {
			return out, nil
		}
	}
}

// parseDiag reads one answer, of several messages.
func parseDiag(buf []byte, family, state uint8) (out []row, done bool, err error) {
	order := binary.NativeEndian
	for len(buf) >= unix.SizeofNlMsghdr {
		size := int(order.Uint32(buf))
		if size < unix.SizeofNlMsghdr || size > len(buf) {
			return nil, false, errors.New("a netlink message of a wrong size")
		}
		body := buf[unix.SizeofNlMsghdr:size]
		switch order.Uint16(buf[4:]) {
		case unix.NLMSG_DONE:
			return out, true, nil
		case unix.NLMSG_ERROR:
			if len(body) < 4 {
				return nil, false, errors.New("a netlink message of a wrong size")
			}
			return nil, false, unix.Errno(-int32(order.Uint32(body)))
		case unix.SOCK_DIAG_BY_FAMILY:
			if len(body) < diagAnswerSize {
				return nil, false, errors.New("a netlink message of a wrong size")
			}
			if body[0] == family && body[1] == state {
				out = append(out, diagRow(body))
			}
		}
		buf = buf[min((size+unix.NLMSG_ALIGNTO-1)&^(unix.NLMSG_ALIGNTO-1), len(buf)):]
	}
	return out, false, nil
}

func diagRow(body []byte) row {
	port := binary.BigEndian.Uint16(body[4:])
	addr := netip.AddrFrom16([16]byte(body[8:24]))
	if body[0] == unix.AF_INET {
		addr = netip.AddrFrom4([4]byte(body[8:12]))
	}
	return row{inode: uint64(binary.NativeEndian.Uint32(body[68:])), local: netip.AddrPortFrom(addr, port)}
}
