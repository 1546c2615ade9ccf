// SPDX-License-Identifier: Apache-2.0

package origin

import (
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/judge"
)

// Socket tells the family of the socket that a thread has under a descriptor. It never waits: what is no socket is not asked.
//
// pidfd_getfd would give the socket itself, and change the cgroup that its packets are counted to on the way.
func (g *Gatherer) Socket(tid int, fd uint64) judge.Socket {
	// To the kernel it is an int. A path alone is not an open of the file: it asks no file system, and holds what it found.
	name := "/proc/" + strconv.Itoa(tid) + "/fd/" + strconv.Itoa(int(int32(fd)))
	at, err := unix.Open(name, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return judge.NoSocket
	}
	defer func() { _ = unix.Close(at) }()
	name = "/proc/self/fd/" + strconv.Itoa(at)
	var text [64]byte
	n, err := unix.Readlink(name, text[:])
	if err != nil || !strings.HasPrefix(string(text[:n]), "socket:[") { // a file's begins with "/"
		return judge.NoSocket
	}
	n, err = unix.Getxattr(name, "system.sockprotoname", text[:])
	if err != nil {
		return judge.NoSocket
	}
	switch strings.TrimRight(string(text[:n]), "\x00") {
	case "UNIX", "UNIX-STREAM": // the latter since Linux 5.15
		return judge.Unix
	case "NETLINK":
		return judge.Netlink
	}
	return judge.NoSocket
}
