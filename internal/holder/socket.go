// SPDX-License-Identifier: Apache-2.0

package holder

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/whittle-sec/whittle/internal/hint"
	"golang.org/x/sys/unix"
)

// socket that listens at a path.
type socket struct {
	path     string
	kind     int // SOCK_*
	mode     os.FileMode
	group    string // gets rw too, if there is such a group
	fd       int
	dev, ino uint64 // of the file
}

// listen at the path. What is there is a dead holder's: the caller has the lock.
func (s *socket) listen() error {
	if err := os.MkdirAll(filepath.Dir(s.path), 0o755); err != nil {
		return fmt.Errorf("make the socket's directory: %w", err)
	}
	if info, err := os.Lstat(s.path); err == nil && info.Mode().Type() != os.ModeSocket {
		return fmt.Errorf("listen at %s: there is something that is not a socket", s.path)
	}
	if err := os.Remove(s.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove a dead holder's socket: %w", err)
	}
	fd, err := unix.Socket(unix.AF_UNIX, s.kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("make a socket: %w", err)
	}
	s.fd = fd
	// With fchmod before bind(2) the file is never open to more than it should be: bind gives it this mode.
	if err = unix.Fchmod(fd, uint32(s.mode)); err == nil {
		err = unix.Bind(fd, &unix.SockaddrUnix{Name: s.path})
	}
	if err == nil {
		err = s.open()
	}
	if err == nil {
		err = unix.Listen(fd, unix.SOMAXCONN)
	}
	if err != nil {
		s.close()
		return hint.Add(fmt.Errorf("listen at %s: %w", s.path, err), "a socket's path has at most 107 bytes and lies where root may write")
	}
	return nil
}

// open the file to the group, and remember which file it is.
func (s *socket) open() error {
	var stat unix.Stat_t
	if err := unix.Lstat(s.path, &stat); err != nil {
		return err
	}
	s.dev, s.ino = stat.Dev, stat.Ino
	if s.group == "" {
		return nil
	}
	group, err := user.LookupGroup(s.group)
	var unknown user.UnknownGroupError
	if errors.As(err, &unknown) {
		return nil
	}
	if err != nil {
		return err
	}
	gid, err := strconv.Atoi(group.Gid)
	if err != nil {
		return fmt.Errorf("read the id of group %s: %w", s.group, err)
	}
	if err := os.Lchown(s.path, -1, gid); err != nil {
		return err
	}
	return os.Chmod(s.path, s.mode|0o060)
}

// there tells whether the file is still this socket's.
func (s *socket) there() bool {
	var stat unix.Stat_t
	return s.fd >= 0 && unix.Lstat(s.path, &stat) == nil && stat.Dev == s.dev && stat.Ino == s.ino
}

func (s *socket) unlink() {
	if s.there() {
		// Somebody else may have done it.
		_ = os.Remove(s.path)
	}
}

func (s *socket) close() {
	if s.fd >= 0 {
		unix.Close(s.fd)
		s.fd = -1
	}
}

// accept a connection, and who is at its other end, as the kernel recorded it when it connected.
func (s *socket) accept() (fd int, peer *unix.Ucred, err error) {
	fd, _, err = unix.Accept4(s.fd, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
	if err != nil {
		return -1, nil, err
	}
	peer, err = unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		unix.Close(fd)
		return -1, nil, err
	}
	return fd, peer, nil
}

// lock that only one holder of a control socket has. Its file says which: the pid, and whether systemd starts it again.
type lock struct {
	file *os.File
	path string
}

const managed = "systemd"

// takeLock returns no lock, and the pid, when another holder has it.
func takeLock(control string, bySystemd bool) (l *lock, holder int, err error) {
	path := control + ".lock"
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, 0, fmt.Errorf("make the lock's directory: %w", err)
	}
	for {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, 0, fmt.Errorf("open the lock: %w", err)
		}
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if errors.Is(err, unix.EWOULDBLOCK) {
			pid, _ := readLock(f)
			return nil, pid, f.Close()
		}
		if err != nil {
			f.Close()
			return nil, 0, fmt.Errorf("lock %s: %w", path, err)
		}
		// A holder that ended may have removed the file between the two calls above.
		if ours, err := f.Stat(); err == nil {
			if there, err := os.Lstat(path); err == nil && os.SameFile(ours, there) {
				text := strconv.Itoa(os.Getpid())
				if bySystemd {
					text += " " + managed
				}
				if err := errors.Join(f.Truncate(0), writeAt(f, text)); err != nil {
					f.Close()
					return nil, 0, fmt.Errorf("write the lock: %w", err)
				}
				return &lock{f, path}, 0, nil
			}
		}
		f.Close()
	}
}

func writeAt(f *os.File, text string) error {
	_, err := f.WriteAt([]byte(text+"\n"), 0)
	return err
}

// readLock says who has, or had, the lock.
func readLock(f io.ReaderAt) (pid int, bySystemd bool) {
	buf := make([]byte, 64)
	n, _ := f.ReadAt(buf, 0) // an empty file is nobody's
	first, second, _ := strings.Cut(strings.TrimSpace(string(buf[:n])), " ")
	pid, _ = strconv.Atoi(first)
	return pid, second == managed
}

// release the lock. With remove its file goes too: nobody will start this holder again.
func (l *lock) release(remove bool) error {
	var err error
	if remove {
		err = os.Remove(l.path)
	}
	return errors.Join(err, l.file.Close())
}
