// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// imageRoot is the root of somebody's file system, which is hostile: no name in it leads out of it, and nothing in it is
// opened that is not a plain file.
type imageRoot struct{ dir *os.File }

func openRoot(dir string) (imageRoot, error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return imageRoot{}, fmt.Errorf("open %s: %w", dir, err)
	}
	return imageRoot{os.NewFile(uintptr(fd), dir)}, nil
}

func (r imageRoot) Close() error { return r.dir.Close() }

// errNoFile means that there is no plain file of a name.
var errNoFile = errors.New("there is no such file")

// open a plain file. Symbolic links lead where they would for a process in there (openat2(2), RESOLVE_IN_ROOT). It is looked at
// before it is opened, because opening a device or a pipe already does something.
func (r imageRoot) open(name string) (*os.File, int64, error) {
	if name == "" || len(name) > unix.PathMax || strings.ContainsRune(name, 0) {
		return nil, 0, errNoFile
	}
	how := &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	fd, err := unix.Openat2(int(r.dir.Fd()), path.Clean("/"+name), how)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENAMETOOLONG):
		return nil, 0, errNoFile
	case err != nil:
		return nil, 0, fmt.Errorf("look at %s: %w", oneLine(name), err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, 0, fmt.Errorf("look at %s: %w", oneLine(name), err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, 0, errNoFile
	}
	f, err := os.Open("/proc/self/fd/" + strconv.Itoa(fd))
	if err != nil {
		return nil, 0, fmt.Errorf("open %s: %w", oneLine(name), err)
	}
	return f, st.Size, nil
}

func (r imageRoot) has(name string) bool {
	f, _, err := r.open(name)
	if err != nil {
		return false
	}
	f.Close()
	return true
}

// head is the beginning of a file; empty when it cannot be read.
func (r imageRoot) head(name string, limit int64) []byte {
	f, _, err := r.open(name)
	if err != nil {
		return nil
	}
	defer f.Close()
	text, _ := io.ReadAll(io.LimitReader(f, limit)) // what was read until then is as good as any
	return text
}

// find a command as execvp would: by its path, or along PATH.
func (r imageRoot) find(command, search, dir string) (name string, ok bool) {
	if strings.Contains(command, "/") {
		if !path.IsAbs(command) {
			command = path.Join("/", dir, command)
		}
		return command, r.has(command)
	}
	for d := range strings.SplitSeq(search, ":") {
		if name := path.Join("/", d, command); command != "" && r.has(name) {
			return name, true
		}
	}
	return "", false
}
