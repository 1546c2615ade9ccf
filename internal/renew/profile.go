// SPDX-License-Identifier: Apache-2.0

package renew

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/whittle-sec/whittle/internal/hint"
	"golang.org/x/sys/unix"
)

// ProfileDir has the profiles that units name and that a renewal may replace: they are Whittle's.
const ProfileDir = "/etc/whittle"

// maxProfile bounds what is read of one; with argument rules for all calls it has 1 MB.
const maxProfile = 4 << 20

// asides are the names beside a profile's under which a renewal has the one that was there, and the new one while it is written.
func asides(path, id string) (before, fresh string) {
	dir, name := filepath.Split(path)
	return dir + "." + name + "." + id + ".before", dir + "." + name + "." + id + ".new"
}

// replaceProfile at a path by what is in the file from. The one that was there stays beside it until restoreProfile or
// forgetProfile: whoever is killed in between leaves one of the two, whole.
func replaceProfile(path, id, from string) error {
	text, err := readProfile(from)
	if err != nil {
		return err
	}
	was, err := os.Lstat(path)
	if err != nil {
		return fmt.Errorf("find the unit's profile: %w", err)
	}
	stat, ok := was.Sys().(*syscall.Stat_t)
	if !was.Mode().IsRegular() || !ok {
		return fmt.Errorf("the unit's profile %s is no regular file", path)
	}
	if is, err := os.Stat(from); err == nil && os.SameFile(is, was) {
		return hint.Add(errors.New("the new profile is the unit's own file, so that there would be no way back"), "write the new one to another file")
	}
	before, fresh := asides(path, id)
	if err := os.Link(path, before); err != nil {
		return fmt.Errorf("keep the unit's profile: %w", err)
	}
	if err := writeWhole(fresh, text, was.Mode().Perm(), int(stat.Uid), int(stat.Gid)); err != nil {
		return fmt.Errorf("write the unit's profile: %w", err)
	}
	if err := os.Rename(fresh, path); err != nil {
		return fmt.Errorf("replace the unit's profile: %w", err)
	}
	return syncDir(path)
}

func readProfile(name string) ([]byte, error) {
	file, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("read the new profile: %w", err)
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxProfile+1))
	if err != nil {
		return nil, fmt.Errorf("read the new profile: %w", err)
	}
	if len(text) > maxProfile || !json.Valid(text) {
		return nil, fmt.Errorf("the new profile %s is no JSON of at most %d bytes", name, maxProfile)
	}
	return text, nil
}

func writeWhole(name string, text []byte, mode fs.FileMode, uid, gid int) error {
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(text)
	if err == nil {
		err = errors.Join(file.Chown(uid, gid), file.Chmod(mode), file.Sync())
	}
	return errors.Join(err, file.Close())
}

// restoreProfile that replaceProfile has replaced, or begun to. It may be called again.
func restoreProfile(path, id string) error {
	before, _ := asides(path, id)
	if err := os.Rename(before, path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// Where both are one file, nothing has been replaced, and rename(2) leaves both names.
	return errors.Join(forgetProfile(path, id), syncDir(path))
}

// forgetProfile that was there before.
func forgetProfile(path, id string) error {
	before, fresh := asides(path, id)
	var failed error
	for _, name := range []string{before, fresh} {
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = errors.Join(failed, err)
		}
	}
	return failed
}

// syncDir that a file is in, so that its name stays what it is.
func syncDir(path string) error {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
