// SPDX-License-Identifier: Apache-2.0

package install

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/hint"
)

// checkExecutable refuses one that may vanish or that anybody may replace: engines run it as root for every container, and a
// hook that is missing keeps all of them from starting.
func (o Options) checkExecutable() error {
	if err := o.trustworthy(); err != nil {
		return hint.Add(fmt.Errorf("%s cannot be what engines call: %w", o.Whittle, err),
			"put it where programs stay: sudo install -m 755 "+o.Whittle+" /usr/local/bin/whittle")
	}
	return nil
}

func (o Options) trustworthy() error {
	if !path.IsAbs(o.Whittle) || path.Clean(o.Whittle) != o.Whittle {
		return errors.New("it is no clean absolute path")
	}
	name := o.below(o.Whittle)
	if o.Root == "" {
		real, err := filepath.EvalSymlinks(name)
		if err != nil {
			return err
		}
		name = real
		var mount unix.Statfs_t
		if err := unix.Statfs(name, &mount); err != nil {
			return err
		}
		if mount.Type == unix.TMPFS_MAGIC {
			return errors.New("it lies in memory and is gone after a reboot")
		}
	}
	var st unix.Stat_t
	if err := unix.Stat(name, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Mode&0o111 != 0o111 {
		return errors.New("it is no executable file")
	}
	top := o.below("/")
	for {
		if err := unix.Stat(name, &st); err != nil {
			return err
		}
		switch {
		case st.Uid != 0 && (o.Root == "" || int(st.Uid) != os.Geteuid()):
			return fmt.Errorf("%s belongs to user %d", name, st.Uid)
		case st.Mode&0o002 != 0:
			return fmt.Errorf("everybody may write to %s", name)
		case name == top:
			return nil
		}
		name = path.Dir(name)
	}
}
