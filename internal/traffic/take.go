// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Bounds on what processes may make us look at and hold.
const (
	maxListeners   = 64 // as the BPF program's MAX_SIDE
	maxPIDs        = 4096
	maxDescriptors = 1 << 18 // in all processes together
	maxUnmovable   = 64
	maxDeceits     = 8
)

// scan looks for the sockets of some inodes among the descriptors of hostile processes, which may change while it looks:
// nothing is believed before it was asked of the descriptor itself, and nothing that may block is done to it.
type scan struct {
	wanted  map[uint64]bool // inodes that listen
	noted   map[uint64]bool // inodes that are looked for, and not taken
	looked  int             // descriptors
	deceits int             // descriptors that became something else
	cookie  uint64
}

// process gives each wanted socket that the process has to found, which owns it then. Inodes that are only noted it
// marks. A process that has ended has nothing.
func (s *scan) process(pid int, found func(inode uint64, fd int) error) error {
	pidfd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open process %d: %w", pid, err)
	}
	defer unix.Close(pidfd)
	dir, err := os.Open(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return gone(err)
	}
	defer dir.Close()
	for {
		names, err := dir.Readdirnames(512)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return gone(err)
		}
		for _, name := range names {
			if s.looked++; s.looked > maxDescriptors {
				return fmt.Errorf("the processes have more than %d open files", maxDescriptors)
			}
			if err := s.descriptor(pidfd, dir, name, found); err != nil {
				return err
			}
		}
	}
}

// gone turns the errors of a process that has ended into nil.
func gone(err error) error {
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return nil
	}
	return fmt.Errorf("list a process's open files: %w", err)
}

func (s *scan) descriptor(pidfd int, dir *os.File, name string, found func(uint64, int) error) error {
	inode, ok := socketInode(dir, name)
	if !ok {
		return nil
	}
	if _, ok := s.noted[inode]; ok {
		s.noted[inode] = true
	}
	number, err := strconv.ParseInt(name, 10, 32)
	if err != nil || !s.wanted[inode] {
		return nil
	}
	fd, err := unix.PidfdGetfd(pidfd, int(number), 0)
	switch {
	case errors.Is(err, unix.EBADF), errors.Is(err, unix.ESRCH):
		return nil // closed meanwhile
	case err != nil:
		return fmt.Errorf("take a listening socket from its process: %w", err)
	}
	if !s.genuine(fd, inode) {
		// Somebody else's file: closing it may wait for a remote file system or a socket that lingers.
		go unix.Close(fd)
		if s.deceits++; s.deceits > maxDeceits {
			return errors.New("the processes exchange their open files while these are looked at")
		}
		return nil
	}
	return found(inode, fd)
}

// socketInode of a link in /proc/PID/fd.
func socketInode(dir *os.File, name string) (uint64, bool) {
	var buf [64]byte // "socket:[18446744073709551615]"
	n, err := unix.Readlinkat(int(dir.Fd()), name, buf[:])
	if err != nil || n == len(buf) {
		return 0, false
	}
	text, ok := strings.CutPrefix(string(buf[:n]), "socket:[")
	if !ok {
		return 0, false
	}
	inode, err := strconv.ParseUint(strings.TrimSuffix(text, "]"), 10, 64)
	return inode, err == nil
}

// genuine says whether this is the listening stream socket that was looked for. getsockopt comes first: of a file that
// is no socket even fstat may wait for ever.
func (s *scan) genuine(fd int, inode uint64) bool {
	listens, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err != nil || listens != 1 {
		return false
	}
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil || cookie != s.cookie {
		return false
	}
	protocol, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	if err != nil || protocol != unix.IPPROTO_TCP && protocol != unix.IPPROTO_MPTCP {
		return false
	}
	var stat unix.Stat_t
	return unix.Fstat(fd, &stat) == nil && stat.Ino == inode
}
