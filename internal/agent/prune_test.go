// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/renew"
)

// profileUser is an engine whose containers were made with these profiles.
type profileUser struct {
	*engines
	paths []string
	err   error
}

func (p *profileUser) Profiles(context.Context) ([]string, error) { return p.paths, p.err }

// state is a directory with files that are empty, and as old as a day unless they are named new.
func state(t *testing.T, files ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, f := range files {
		name := filepath.Join(dir, f)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if old := time.Now().Add(-24 * time.Hour); !strings.Contains(f, "new") {
			if err := os.Chtimes(name, old, old); err != nil {
				t.Fatal(err)
			}
		}
	}
	return dir
}

func filesIn(t *testing.T, dir string) (names []string) {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range list {
		names = append(names, f.Name())
	}
	return names
}

func TestProfilesArePruned(t *testing.T) {
	all := []string{"cut-2.json", "link-3.json", "new-5.json", "notes", "unused-4.json", "used-1.json"}
	away := fmt.Errorf("ask: %w", engine.ErrUnavailable)
	for _, tt := range []struct {
		name     string
		maker    func(used []string) engine.Maker
		journals error
		fails    bool
		want     []string
	}{
		{name: "what nobody needs", maker: func(used []string) engine.Maker { return &profileUser{newEngines("web"), used, nil} }, want: slices.Delete(slices.Clone(all), 4, 5)},
		{name: "an engine that is away", maker: func([]string) engine.Maker { return &profileUser{newEngines("web"), nil, away} }, fails: true, want: all},
		{name: "a journal that cannot be read", maker: func([]string) engine.Maker { return newEngines("web") }, journals: errors.New("torn"), fails: true, want: all},
		{name: "an engine that reads a profile once", maker: func([]string) engine.Maker { return newEngines("web") }, want: []string{"cut-2.json", "new-5.json", "notes"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := state(t, "profiles/podman/used-1.json", "profiles/podman/cut-2.json", "profiles/podman/link-3.json",
				"profiles/podman/unused-4.json", "profiles/podman/new-5.json", "profiles/podman/notes", "profiles/docker/unused-1.json")
			a := &Agent{Config: Config{State: dir, Now: time.Now, Moving: &Moving{}}}
			at := func(name string) string { return filepath.Join(a.profileDir("podman"), name) }
			link := filepath.Join(dir, "link")
			if err := os.Symlink(at("link-3.json"), link); err != nil {
				t.Fatal(err)
			}
			a.Moving.Profiles = func() ([]string, error) { return []string{at("cut-2.json")}, tt.journals }
			err := a.pruneProfiles(t.Context(), "podman", tt.maker([]string{at("used-1.json"), link, at("gone-9.json")}))
			if (err != nil) != tt.fails {
				t.Errorf("pruneProfiles: %v", err)
			}
			if got := filesIn(t, a.profileDir("podman")); !slices.Equal(got, tt.want) {
				t.Errorf("left: %q, want %q", got, tt.want)
			}
			if got := filesIn(t, a.profileDir("docker")); len(got) != 1 {
				t.Errorf("another engine's: %q", got)
			}
		})
	}
}

// Reports of units are old by the time that no container can set, and what they lead to is left alone.
func TestReportsOfUnitsArePruned(t *testing.T) {
	dir := state(t, "reports/asan.1", "reports/d/inside", "reports/new.2", "kept")
	reports := filepath.Join(dir, "reports")
	if err := os.Symlink(filepath.Join(dir, "kept"), filepath.Join(reports, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(reports, "empty"), 0o755); err != nil {
		t.Fatal(err)
	}
	var later time.Duration
	a := &Agent{Config: Config{State: dir, Now: func() time.Time { return time.Now().Add(later) }}}
	for _, tt := range []struct {
		later time.Duration
		want  []string
	}{
		{reportAge - time.Minute, []string{"asan.1", "d", "empty", "link", "new.2"}}, // whatever their own time says
		{reportAge + time.Minute, []string{"d"}},
	} {
		later = tt.later
		if err := a.pruneReports(reports); err != nil {
			t.Fatal(err)
		}
		if got := filesIn(t, reports); !slices.Equal(got, tt.want) {
			t.Errorf("after %s: %q, want %q", tt.later, got, tt.want)
		}
	}
	if got := filesIn(t, dir); !slices.Equal(got, []string{"kept", "reports"}) {
		t.Errorf("beside the reports: %q", got)
	}
}

// It is done when the agent starts and after each renewal.
func TestPrunesAtStartAndAfterRenewals(t *testing.T) {
	var now atomic.Int64
	now.Store(time.Now().UnixNano())
	dir := state(t, "profiles/podman/unused-1.json")
	asked := make(chan renew.Request, 1)
	put := func() (renew.Result, error) {
		old := time.Now().Add(-24 * time.Hour)
		name := filepath.Join(dir, "profiles/podman/unused-2.json")
		return renew.Result{Outcome: renew.Renewed}, errors.Join(os.WriteFile(name, nil, 0o644), os.Chtimes(name, old, old))
	}
	r := renewing(t, true, &now, asked, put, func(c *Config) {
		c.State = dir
		c.Moving.Profiles = func() ([]string, error) { return nil, nil }
	})
	empty := func() bool { return len(filesIn(t, filepath.Join(dir, "profiles/podman"))) == 0 }
	until(empty)
	pid, _ := sleeper(t)
	if err := r.client.Register(t.Context(), registration("1", pid)); err != nil {
		t.Fatal(err)
	}
	r.want("1", "a call is hot", renewAfter, &now)
	<-asked
	until(r.journaled("web-1: renewed"))
	until(empty)
}
