// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// order steers by the place that a socket has in the kernel's list of the group (struct sock_reuseport), for sockets that
// cannot be in an array. A classic program returns the place; a place that nobody has leaves it to the kernel's hash.
// Who joins is appended, and the last takes the place of who leaves. That can be followed as long as each side has one
// socket. Such a program moves nothing when a socket closes: the kernel does, by its hash, where net.ipv4.tcp_migrate_req
// says so.
type order struct{ members []uint64 } // inodes, in the kernel's order

func newOrder(owner []uint64) (*order, error) {
	if len(owner) != 1 {
		return nil, fmt.Errorf("%d sockets listen at one address, one of them with MPTCP: only one can be steered", len(owner))
	}
	return &order{members: slices.Clone(owner)}, nil
}

// update follows what joined and left since, given who is there now. First some left, then one joined.
func (o *order) update(now []uint64) error {
	for i := 0; i < len(o.members); {
		if slices.Contains(now, o.members[i]) {
			i++
			continue
		}
		last := len(o.members) - 1
		o.members[i] = o.members[last]
		o.members = o.members[:last]
	}
	joined := 0
	for _, inode := range now {
		if !slices.Contains(o.members, inode) {
			o.members = append(o.members, inode)
			joined++
		}
	}
	if joined > 1 {
		return errors.New("more sockets listen at the address than can be told apart")
	}
	return nil
}

func (o *order) place(inode uint64) (int, bool) {
	at := slices.Index(o.members, inode)
	return at, at >= 0
}

// attachOrder steers the group of the socket: to a place, and the connection from knock, if that is valid, to another.
func attachOrder(fd, to, knocked int, knock netip.AddrPort) error {
	raw, err := bpf.Assemble(orderProgram(uint32(to), uint32(knocked), knock))
	if err != nil {
		return fmt.Errorf("assemble a filter: %w", err)
	}
	filter := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		filter[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	program := &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF, program); err != nil {
		return fmt.Errorf("attach to the listening sockets: %w", err)
	}
	return nil
}

// netOff is SKF_NET_OFF: the packet from its network header on.
const netOff = uint32(1<<32 - 0x100000)

// orderProgram compares what makes a knock: version, source address, source port. Our own SYN has no IP options.
func orderProgram(to, knocked uint32, knock netip.AddrPort) []bpf.Instruction {
	if !knock.IsValid() {
		return []bpf.Instruction{bpf.RetConstant{Val: to}}
	}
	type field struct{ off, size, want uint32 }
	addr := knock.Addr().Unmap().AsSlice()
	fields := []field{{0, 1, 0x45}, {20, 2, uint32(knock.Port())}}
	at := uint32(12)
	if len(addr) == 16 {
		fields, at = []field{{0, 1, 0x60}, {40, 2, uint32(knock.Port())}}, 8
	}
	for i := uint32(0); i < uint32(len(addr)); i += 4 {
		fields = append(fields, field{at + i, 4, binary.BigEndian.Uint32(addr[i:])})
	}
	var out []bpf.Instruction
	for i, f := range fields {
		// Two instructions a field; then the two returns, the first for a match.
		rest := 2*(len(fields)-i-1) + 1
		out = append(out, bpf.LoadAbsolute{Off: netOff + f.off, Size: int(f.size)},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: f.want, SkipFalse: uint8(rest)})
	}
	return append(out, bpf.RetConstant{Val: knocked}, bpf.RetConstant{Val: to})
}
