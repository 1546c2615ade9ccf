// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"encoding/binary"
	"net/netip"
)

// connection is what a SYN asks for; another SYN of the same one is sent again, or takes its place.
type connection struct {
	src, dst netip.AddrPort
	hook     uint8
	in       uint32 // index of the interface it came in by; equal addresses may live behind two of them
}

const (
	protoTCP = 6
	// An IPv6 packet may carry headers before TCP's; nobody sends more than one or two.
	maxExtensions = 8
)

// parseSYN reads the addresses of a TCP SYN (without ACK) from the first bytes of an IP packet, which anybody may
// have sent.
func parseSYN(p []byte) (src, dst netip.AddrPort, ok bool) {
	if len(p) == 0 {
		return src, dst, false
	}
	var from, to netip.Addr
	var tcp []byte
	switch p[0] >> 4 {
	case 4:
		from, to, tcp, ok = ipv4(p)
	case 6:
		from, to, tcp, ok = ipv6(p)
	}
	if !ok || len(tcp) < 14 {
		return src, dst, false
	}
	const fin, syn, rst, ack = 0x01, 0x02, 0x04, 0x10
	if tcp[13]&(fin|syn|rst|ack) != syn {
		return src, dst, false
	}
	src = netip.AddrPortFrom(from, binary.BigEndian.Uint16(tcp))
	dst = netip.AddrPortFrom(to, binary.BigEndian.Uint16(tcp[2:]))
	return src, dst, true
}

func ipv4(p []byte) (from, to netip.Addr, tcp []byte, ok bool) {
	header := int(p[0]&0xf) * 4
	if header < 20 || len(p) < header || p[9] != protoTCP {
		return from, to, nil, false
	}
	if binary.BigEndian.Uint16(p[6:])&0x1fff != 0 { // a later fragment has no TCP header
		return from, to, nil, false
	}
	return netip.AddrFrom4([4]byte(p[12:16])), netip.AddrFrom4([4]byte(p[16:20])), p[header:], true
}

func ipv6(p []byte) (from, to netip.Addr, tcp []byte, ok bool) {
	if len(p) < 40 {
		return from, to, nil, false
	}
	next, rest := p[6], p[40:]
	for range maxExtensions {
		switch next {
		case protoTCP:
			return netip.AddrFrom16([16]byte(p[8:24])), netip.AddrFrom16([16]byte(p[24:40])), rest, true
		case 0, 43, 60: // hop-by-hop, routing, destination options: next header, length in 8 bytes beyond the first 8
			if len(rest) < 2 {
				return from, to, nil, false
			}
			size := 8 * (int(rest[1]) + 1)
			if len(rest) < size {
				return from, to, nil, false
			}
			next, rest = rest[0], rest[size:]
		default:
			return from, to, nil, false
		}
	}
	return from, to, nil, false
}
