// SPDX-License-Identifier: Apache-2.0

package api

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"slices"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Peer is the process at the other end of the socket, as the kernel recorded it when it connected.
type Peer struct {
	PID    int
	UID    uint32
	GID    uint32
	Groups []uint32
}

// maxGroups is the kernel's NGROUPS_MAX.
const maxGroups = 65536

// peerOf asks the kernel, not the peer.
func peerOf(conn *net.UnixConn) (Peer, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return Peer{}, fmt.Errorf("read the peer's credentials: %w", err)
	}
	var p Peer
	var inner error
	err = raw.Control(func(fd uintptr) {
		cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err != nil {
			inner = err
			return
		}
		p = Peer{PID: int(cred.Pid), UID: cred.Uid, GID: cred.Gid}
		p.Groups, inner = peerGroups(fd)
	})
	if err := errors.Join(err, inner); err != nil {
		return Peer{}, fmt.Errorf("read the peer's credentials: %w", err)
	}
	return p, nil
}

// peerGroups are the supplementary groups that the peer really has; /etc/group only says what a new login would get.
func peerGroups(fd uintptr) ([]uint32, error) {
	buf := make([]byte, 64*4)
	for {
		size := uint32(len(buf))
		// x/sys has no wrapper for SO_PEERGROUPS (Linux 4.13).
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&buf[0])), uintptr(unsafe.Pointer(&size)), 0)
		if errno == unix.ERANGE && size <= maxGroups*4 && int(size) > len(buf) {
			buf = make([]byte, size)
			continue
		}
		if errno != 0 {
			return nil, fmt.Errorf("getsockopt SO_PEERGROUPS: %w", errno)
		}
		groups := make([]uint32, size/4)
		for i := range groups {
			groups[i] = binary.NativeEndian.Uint32(buf[i*4:])
		}
		return groups, nil
	}
}

// Privileged peers are root and the user the agent itself runs as. The others are members of the group.
func (p Peer) Privileged() bool { return p.UID == 0 || p.UID == uint32(os.Geteuid()) }

// Name of the peer's user, for the journal.
func (p Peer) Name() string {
	if u, err := user.LookupId(strconv.FormatUint(uint64(p.UID), 10)); err == nil {
		return u.Username
	}
	return fmt.Sprintf("user %d", p.UID)
}

// mayTalk tells whether a peer may use the socket: root, the user the agent itself runs as, and the group's members.
func (p Peer) mayTalk(self uint32, group uint32, hasGroup bool) bool {
	if p.UID == 0 || p.UID == self {
		return true
	}
	return hasGroup && (p.GID == group || slices.Contains(p.Groups, group))
}

// whittleGroup is looked up for each connection: an administrator may make the group while the agent runs.
func whittleGroup() (gid uint32, ok bool) {
	g, err := user.LookupGroup(Group)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseUint(g.Gid, 10, 32)
	return uint32(n), err == nil
}
