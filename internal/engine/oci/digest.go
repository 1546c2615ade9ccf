// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/engine"
)

// digests is where root's hooks remember the digests of runtimes: hashing runc takes 20 ms, at each start of a container.
const digests = "/run/whittle/runtimes"

// hashed is the digest of a runtime's executable: remembered in dir if it was hashed before, by root, for a file that has
// not changed since. installed is the file that the executable is, or is a sealed copy of.
func hashed(dir, installed, exe string) (string, error) {
	var once engine.Digests
	name, err := digestName(installed, exe)
	if err != nil || os.Geteuid() != 0 {
		return once.Of(exe)
	}
	if data, err := readUnder(dir, name, 128); err == nil && strings.HasPrefix(string(data), "sha256:") {
		return string(data), nil
	}
	digest, err := once.Of(exe)
	if err != nil {
		return "", err
	}
	// What cannot be remembered is hashed again the next time.
	_ = remember(dir, name, digest)
	return digest, nil
}

// digestName is the identity of the installed file. A sealed copy has the same size; only root could have it another content.
func digestName(installed, exe string) (string, error) {
	var file, copied unix.Stat_t
	if err := unix.Stat(installed, &file); err != nil {
		return "", err
	}
	if err := unix.Stat(exe, &copied); err != nil {
		return "", err
	}
	if file.Mode&unix.S_IFMT != unix.S_IFREG || file.Uid != 0 || file.Mode&0o022 != 0 || file.Size != copied.Size {
		return "", errors.New("not a file that only root can change")
	}
	return fmt.Sprintf("%d-%d-%d-%d-%d", file.Dev, file.Ino, file.Size, file.Mtim.Nano(), file.Ctim.Nano()), nil
}

func remember(dir, name, digest string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, "new-")
	if err != nil {
		return err
	}
	_, err = f.WriteString(digest)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), filepath.Join(dir, name))
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
