// SPDX-License-Identifier: Apache-2.0

package services

import (
	"cmp"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// hidden are what no service sees of the host: what it has of its own, or nobody's business.
var hidden = []Dir{
	{Path: "/run"}, {Path: "/tmp", Mode: 0o1777}, {Path: "/var/tmp", Mode: 0o1777}, {Path: "/root", Mode: 0o700}, {Path: "/home"},
	{Path: "/mnt"}, {Path: "/media"}, {Path: "/boot"}, {Path: "/var/cache/apt"}, {Path: "/var/lib/containers"},
	{Path: "/var/lib/docker"}, {Path: "/run/lock", Mode: 0o1777},
}

// ours are the directories in / that a distribution has; whatever else is there is the host's own.
var ours = []string{"bin", "dev", "etc", "lib", "lib32", "lib64", "libx32", "opt", "proc", "sbin", "srv", "sys", "usr", "var"}

// furnish the upper layer of a service's root.
func (s Service) furnish(upper string) error {
	hide := slices.Clone(hidden)
	top, err := os.ReadDir("/")
	if err != nil {
		return err
	}
	for _, entry := range top {
		if entry.IsDir() && !slices.Contains(ours, entry.Name()) {
			hide = append(hide, Dir{Path: "/" + entry.Name()})
		}
	}
	for _, path := range s.Hide {
		hide = append(hide, Dir{Path: path})
	}
	made := map[string]bool{}
	for _, d := range hide {
		if _, err := os.Stat(d.Path); err != nil || made[d.Path] {
			continue // there is nothing to hide
		}
		made[d.Path] = true
		if err := d.make(upper, true); err != nil {
			return err
		}
	}
	for _, d := range s.Dirs {
		if err := d.make(upper, false); err != nil {
			return err
		}
	}
	for _, f := range s.Files {
		if err := f.write(upper); err != nil {
			return err
		}
	}
	return nil
}

func (d Dir) make(upper string, opaque bool) error {
	path := filepath.Join(upper, d.Path)
	if err := parents(upper, filepath.Dir(d.Path)); err != nil {
		return err
	}
	if err := os.Mkdir(path, 0o755); err != nil && !os.IsExist(err) {
		return err
	}
	if opaque {
		// What overlayfs marks a directory with that hides the one below it (Documentation/filesystems/overlayfs.rst).
		if err := unix.Setxattr(path, "trusted.overlay.opaque", []byte("y"), 0); err != nil {
			return fmt.Errorf("hide %s: %w", d.Path, err)
		}
	}
	if err := own(path, d.Owner); err != nil {
		return err
	}
	return unix.Chmod(path, uint32(cmp.Or(d.Mode, 0o755)))
}

func (f File) write(upper string) error {
	if err := parents(upper, filepath.Dir(f.Path)); err != nil {
		return err
	}
	path := filepath.Join(upper, f.Path)
	if err := os.WriteFile(path, []byte(f.Text), 0o600); err != nil {
		return err
	}
	if err := own(path, f.Owner); err != nil {
		return err
	}
	return unix.Chmod(path, uint32(cmp.Or(f.Mode, 0o644)))
}

// parents makes the directories of the upper layer down to one, each with the owner and mode that it has on the host.
func parents(upper, dir string) error {
	if dir == "/" {
		return nil
	}
	path := filepath.Join(upper, dir)
	if _, err := os.Lstat(path); err == nil {
		return nil
	}
	if err := parents(upper, filepath.Dir(dir)); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		st.Mode, st.Uid, st.Gid = unix.S_IFDIR|0o755, 0, 0
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		return fmt.Errorf("%s is a symbolic link on this host: name what it points to", dir)
	}
	if err := os.Mkdir(path, 0o755); err != nil {
		return err
	}
	if err := os.Chown(path, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	return unix.Chmod(path, st.Mode&0o7777)
}

func own(path, owner string) error {
	if owner == "" {
		return nil
	}
	uid, gid, err := account(owner)
	if err != nil {
		return err
	}
	return os.Lchown(path, int(uid), int(gid))
}

// account of "user" or "user:group".
func account(owner string) (uid, gid uint32, err error) {
	name, group, grouped := strings.Cut(owner, ":")
	u, err := user.Lookup(name)
	if err != nil {
		return 0, 0, err
	}
	id := u.Gid
	if grouped {
		g, err := user.LookupGroup(group)
		if err != nil {
			return 0, 0, err
		}
		id = g.Gid
	}
	u64, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return 0, 0, err
	}
	g64, err := strconv.ParseUint(id, 10, 32)
	return uint32(u64), uint32(g64), err
}
