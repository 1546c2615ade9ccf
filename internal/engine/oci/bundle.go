// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// maxSpec bounds config.json; with the largest seccomp profile that is of use it has 200 KB.
const maxSpec = 16 << 20

func readSpec(bundle string) (*specs.Spec, error) {
	data, err := readUnder(bundle, "config.json", maxSpec)
	if err != nil {
		return nil, fmt.Errorf("read the bundle: %w", err)
	}
	spec, err := parseSpec(data)
	if err != nil {
		return nil, fmt.Errorf("understand the bundle's config.json: %w", err)
	}
	return spec, nil
}

func parseSpec(data []byte) (*specs.Spec, error) {
	var spec specs.Spec
	if err := json.Unmarshal(data, &spec); err != nil {
		return nil, err
	}
	if spec.Process == nil || len(spec.Process.Args) == 0 {
		return nil, errors.New("it has no process to run")
	}
	return &spec, nil
}

// readUnder reads a file below a directory of the engine's.
func readUnder(dir, name string, limit int64) ([]byte, error) {
	f, err := openUnder(dir, name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", f.Name(), err)
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("read %s: more than %d bytes", f.Name(), limit)
	}
	return data, nil
}

// openUnder opens a regular file that only its engine can write. A bundle may lie beside the container's root file system, and
// what is in there may be a symbolic link to anywhere or a FIFO that blocks: nothing of the kind is followed or
// opened (openat2, Linux 5.6).
func openUnder(dir, name string) (*os.File, error) {
	at, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", dir, err)
	}
	defer unix.Close(at)
	fd, err := unix.Openat2(at, name, &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return nil, fmt.Errorf("open %s in %s: %w", name, dir, err)
	}
	f := os.NewFile(uintptr(fd), dir+"/"+name)
	if err := trustworthy(fd); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", f.Name(), err), f.Close())
	}
	return f, nil
}

func trustworthy(fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return errors.New("not a regular file")
	case st.Uid != 0 && int(st.Uid) != os.Geteuid():
		return fmt.Errorf("it belongs to user %d", st.Uid)
	case st.Mode&0o002 != 0:
		return errors.New("everybody may write to it")
	}
	return nil
}
