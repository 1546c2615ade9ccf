// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/whittle-sec/whittle/internal/engine"
)

const (
	pruneEvery = 24 * time.Hour
	// A renewal that was given a profile may not have its journal yet.
	profileAge = time.Hour
	// Reports of units are read by people; the agent knows of none of them.
	reportAge   = 7 * 24 * time.Hour
	reportsRead = 1 << 20 // whoever is in an oracle fills the directory
)

// profiled is an engine that needs the files of the profiles that its containers were made with.
type profiled interface {
	Profiles(ctx context.Context) ([]string, error)
}

// profileDir is where profiles are for one engine: which are in use only that engine can tell.
func (a *Agent) profileDir(engine string) string { return filepath.Join(a.State, "profiles", engine) }

// prune what renewals and oracles' units left in the state directory and nothing needs any more. What cannot be told is in use.
func (a *Agent) prune(ctx context.Context) {
	var errs []error
	for name, maker := range a.Moving.Makers {
		if err := a.pruneProfiles(ctx, name, maker); !errors.Is(err, engine.ErrUnavailable) {
			errs = append(errs, err)
		}
	}
	dirs, err := filepath.Glob(filepath.Join(a.State, "units", "*", "reports"))
	for _, dir := range dirs {
		errs = append(errs, a.pruneReports(dir))
	}
	text := ""
	if err := errors.Join(append(errs, err)...); err != nil && ctx.Err() == nil {
		text = err.Error()
	}
	_ = a.ask(ctx, func(m *model) error { m.problem("remove what is not needed any more from "+a.State, text); return nil })
}

// pruneProfiles that no container of an engine was made with, and none is to be.
func (a *Agent) pruneProfiles(ctx context.Context, name string, maker engine.Maker) error {
	dir := a.profileDir(name)
	files, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) || len(files) == 0 && err == nil {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list the profiles: %w", err)
	}
	used, err := a.Moving.Profiles()
	if err != nil {
		return fmt.Errorf("read what renewals were given: %w", err)
	}
	if p, ok := maker.(profiled); ok {
		of, err := p.Profiles(ctx)
		if err != nil {
			return err
		}
		used = append(used, of...)
	}
	needed, err := statAll(used)
	if err != nil {
		return err
	}
	for _, f := range files {
		info, err := f.Info()
		switch {
		case err != nil, !info.Mode().IsRegular(), !strings.HasSuffix(f.Name(), ".json"), a.Now().Sub(info.ModTime()) < profileAge:
		case slices.ContainsFunc(needed, func(n fs.FileInfo) bool { return os.SameFile(n, info) }): // a path may lead there by a link
		default:
			if err := os.Remove(filepath.Join(dir, f.Name())); err != nil {
				return fmt.Errorf("remove a profile: %w", err)
			}
		}
	}
	return nil
}

// statAll files, but for those that are not there.
func statAll(paths []string) (infos []fs.FileInfo, err error) {
	for _, path := range paths {
		info, err := os.Stat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return nil, fmt.Errorf("find a profile that is in use: %w", err)
		default:
			infos = append(infos, info)
		}
	}
	return infos, nil
}

// pruneReports of a unit that are old. What is in there was made by a container: links are not followed, directories are left
// while anything is in them, and the time is the one that nobody can set.
func (a *Agent) pruneReports(dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("open the reports of a unit: %w", err)
	}
	defer root.Close()
	d, err := root.Open(".")
	if err != nil {
		return fmt.Errorf("open the reports of a unit: %w", err)
	}
	defer d.Close()
	for read := 0; read < reportsRead; {
		names, err := d.Readdirnames(1024)
		for _, name := range names {
			info, err := root.Lstat(name)
			if err != nil {
				continue // gone
			}
			st, ok := info.Sys().(*syscall.Stat_t)
			if ok && a.Now().Sub(time.Unix(st.Ctim.Unix())) >= reportAge {
				_ = root.Remove(name) // a directory that is not empty stays
			}
		}
		if read += len(names); errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("list the reports of a unit: %w", err)
		}
	}
	return nil
}
