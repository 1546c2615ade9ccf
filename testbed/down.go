// SPDX-License-Identifier: Apache-2.0

package testbed

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// parentName is the cgroup below which Podman with cgroup_manager=cgroupfs puts its containers.
const parentName = "libpod_parent"

// Down removes everything: containers, processes, mounts, cgroups, files. It may be called again.
func (e *Env) Down() error {
	var errs []error
	ids := e.containers()
	if e.Holder.alive() {
		ctx, cancel := context.WithTimeout(context.Background(), rightToBack)
		if _, err := e.Run(ctx, "rm", "--all", "--force", "--time", "0"); err != nil {
			// Not the end: what it left is killed and removed below.
			fmt.Fprintf(os.Stderr, "testbed: %v\n", err)
		}
		cancel()
	}
	errs = append(errs, e.killAll())
	for _, id := range ids {
		for _, dir := range []string{"/run/runc", "/run/crun"} {
			errs = append(errs, os.RemoveAll(filepath.Join(dir, id)))
		}
		errs = append(errs, removeCgroups(id))
	}
	for _, dir := range e.Parents {
		errs = append(errs, rmdir(dir))
	}
	errs = append(errs, os.RemoveAll(e.Dir))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove the private podman in %s: %w", e.Dir, err)
	}
	return nil
}

// containers are known to Podman's storage.
func (e *Env) containers() (ids []string) {
	text, err := os.ReadFile(e.path("root", "overlay-containers", "containers.json"))
	if err != nil {
		return nil // none was ever made
	}
	var stored []struct{ ID string }
	if json.Unmarshal(text, &stored) != nil {
		return nil
	}
	for _, s := range stored {
		if len(s.ID) == 64 && strings.Trim(s.ID, "0123456789abcdef") == "" {
			ids = append(ids, s.ID)
		}
	}
	return ids
}

// Who is killed still needs a CPU to end, and a busy machine gives it one when it likes.
const (
	endTries = 1500
	endPause = 20 * time.Millisecond
)

// killAll ends what runs in the namespace, the holder last: it names the namespace.
func (e *Env) killAll() error {
	for range endTries {
		procs, err := e.Holder.tree()
		if err != nil {
			return err
		}
		rest := 0
		for _, p := range procs {
			if p != e.Holder {
				rest++
				if err := p.kill(); err != nil {
					return err
				}
			}
		}
		if rest == 0 {
			break
		}
		time.Sleep(endPause)
	}
	if err := errors.Join(e.Service.kill(), e.Holder.kill()); err != nil {
		return err
	}
	for range endTries {
		if !e.Holder.alive() && !e.Service.alive() {
			return nil
		}
		time.Sleep(endPause)
	}
	return errors.New("processes outlive SIGKILL")
}

// cgroupRoots are the mount points of every hierarchy.
func cgroupRoots() ([]string, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("look for cgroup mounts: %w", err)
	}
	var out []string
	for line := range strings.Lines(string(text)) {
		before, after, _ := strings.Cut(line, " - ")
		if fields := strings.Fields(before); len(fields) >= 5 && strings.HasPrefix(after, "cgroup") {
			out = append(out, fields[4])
		}
	}
	return out, nil
}

func missingParents() ([]string, error) {
	roots, err := cgroupRoots()
	if err != nil {
		return nil, err
	}
	var out []string
	for _, root := range roots {
		dir := filepath.Join(root, parentName)
		if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
			out = append(out, dir)
		}
	}
	return out, nil
}

// removeCgroups of one container, the deepest first.
func removeCgroups(id string) error {
	roots, err := cgroupRoots()
	if err != nil {
		return err
	}
	var errs []error
	for _, root := range roots {
		var dirs []string
		top := filepath.Join(root, parentName, "libpod-"+id)
		err := filepath.WalkDir(top, func(name string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, name)
			}
			return nil // gone meanwhile
		})
		errs = append(errs, err)
		for i := len(dirs) - 1; i >= 0; i-- {
			errs = append(errs, rmdir(dirs[i]))
		}
	}
	return errors.Join(errs...)
}

// rmdir an empty cgroup. One that is in use belongs to another Podman.
func rmdir(dir string) error {
	err := unix.Rmdir(dir)
	if err == nil || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EBUSY) || errors.Is(err, unix.ENOTEMPTY) {
		return nil
	}
	return fmt.Errorf("remove cgroup %s: %w", dir, err)
}
