// SPDX-License-Identifier: Apache-2.0

// Package install writes the configuration that makes an engine call whittle for every container that it starts, and takes it
// back. It touches files only: it neither restarts nor asks an engine, and it says what is left to do.
package install

import (
	"bytes"
	"errors"
	"fmt"
	"path"
	"slices"

	"github.com/whittle-sec/whittle/internal/hint"
)

// Engines that can be configured.
var Engines = []string{"podman", "docker", "containerd"}

// Options of Install and Uninstall.
type Options struct {
	Engine string
	// Root is a directory with a file system, an image's for instance; "" is this machine. What is written into files are
	// paths in it.
	Root string
	// Whittle is the absolute path of the executable in Root.
	Whittle string
	Socket  string // the agent's
	DryRun  bool   // change nothing

	// leaving is set by Uninstall: what others made of the configuration need not be understood then.
	leaving bool
}

// Result of either.
type Result struct {
	Engine  string   `json:"engine"`
	Changes []Change `json:"changes"` // empty when everything was as it should be
	DryRun  bool     `json:"dry_run,omitempty"`
	// Notes for a person, the next command to type first.
	Notes []string `json:"notes,omitempty"`
}

// target is a file that an engine's configuration consists of.
type target struct {
	path string
	link bool // its contents are where a symbolic link leads to
	own  bool // it is Whittle's alone
	// edit makes what the file shall be of what it is; nil is no file. Editing twice is editing once.
	edit func(now []byte) ([]byte, error)
	// undo takes the edit back where others have edited too: was is what the file had been before; nil is no file.
	undo func(now, was []byte) ([]byte, error)
	// inexact files do not become what they were, although nobody else has changed them.
	inexact bool
}

// plan is what an engine's files are, and what a person has to know.
type plan struct {
	targets                []target
	installed, uninstalled []string
	// unfinished: Uninstall leaves something for its next run, which needs the journal.
	unfinished bool
}

func (o Options) plan() (plan, error) {
	switch o.Engine {
	case "podman":
		return o.podman()
	case "docker":
		return o.docker()
	case "containerd":
		return o.containerd()
	}
	return plan{}, hint.Add(fmt.Errorf("unknown engine %q", o.Engine), "it is podman, docker or containerd")
}

// ownTarget is a file of Whittle's.
func ownTarget(name string, link bool, contents []byte) target {
	return target{
		path: name, link: link, own: true,
		edit: func([]byte) ([]byte, error) { return contents, nil },
		undo: func(_, _ []byte) ([]byte, error) { return nil, nil },
	}
}

// Install is idempotent. When it fails, everything is as it was before.
func Install(o Options) (Result, error) {
	r := Result{Engine: o.Engine, DryRun: o.DryRun, Changes: []Change{}}
	if err := o.checkExecutable(); err != nil {
		return r, err
	}
	p, err := o.plan()
	if err != nil {
		return r, err
	}
	j, err := o.readJournal()
	if err != nil {
		return r, err
	}
	old := j.Engines[o.Engine]
	records := slices.Clone(old)
	r.Notes = p.installed
	for _, t := range p.targets {
		now, err := o.read(t.path)
		if err != nil {
			return r, err
		}
		contents, err := t.edit(now.contents)
		if err != nil {
			return r, fmt.Errorf("change %s: %w", t.path, err)
		}
		want := now.with(t, contents)
		if now.same(want) {
			continue
		}
		r.Changes = append(r.Changes, Change{Path: t.path, before: now, after: want})
		rec, err := renewed(records, t, now, want)
		if err != nil {
			return r, err
		}
		records = append(slices.DeleteFunc(records, func(r record) bool { return r.Path == t.path }), rec)
	}
	if o.DryRun || len(r.Changes) == 0 {
		return r, nil
	}
	return r, o.apply(r.Changes, j, records)
}

// renewed is the record of a file that will be changed: what it was before Whittle ever did.
func renewed(records []record, t target, now, want state) (record, error) {
	rec := record{Path: t.path, Before: now.saved(), After: want.saved()}
	i := slices.IndexFunc(records, func(r record) bool { return r.Path == t.path })
	if i < 0 {
		return rec, nil
	}
	before := records[i].Before
	if !now.same(records[i].After.state()) && !now.same(before.state()) { // somebody else has changed it since
		contents, err := t.undo(now.contents, before.state().contents)
		if err != nil {
			return rec, fmt.Errorf("find out what %s was: %w", t.path, err)
		}
		before = now.with(t, contents).saved()
	}
	rec.Before = before
	return rec, nil
}

// Uninstall is idempotent too. Files that nobody has changed since become what they were, byte for byte; from others Whittle's part
// is taken out.
func Uninstall(o Options) (Result, error) {
	o.leaving = true
	r := Result{Engine: o.Engine, DryRun: o.DryRun, Changes: []Change{}}
	p, err := o.plan()
	if err != nil {
		return r, err
	}
	j, err := o.readJournal()
	if err != nil {
		return r, err
	}
	r.Notes = p.uninstalled
	// Backwards: what refers to a file goes before the file.
	targets := p.targets
	if !p.unfinished {
		targets = p.targetsAnd(j.Engines[o.Engine])
	}
	for _, t := range slices.Backward(targets) {
		now, err := o.read(t.path)
		if err != nil {
			return r, err
		}
		want, err := o.restored(j.Engines[o.Engine], t, now)
		if err != nil {
			return r, err
		}
		if want.same(now) {
			continue
		}
		r.Changes = append(r.Changes, Change{Path: t.path, before: now, after: want})
	}
	if o.DryRun {
		return r, nil
	}
	if !p.unfinished {
		return r, o.apply(r.Changes, j, nil)
	}
	left := slices.Clone(j.Engines[o.Engine])
	for i := range left {
		for _, c := range r.Changes {
			if c.Path == left[i].Path {
				left[i].After = c.after.saved()
			}
		}
	}
	return r, o.apply(r.Changes, j, left)
}

// restored is what a file shall be without Whittle.
func (o Options) restored(records []record, t target, now state) (state, error) {
	if !now.exists() {
		return now, nil
	}
	var was []byte
	if i := slices.IndexFunc(records, func(r record) bool { return r.Path == t.path }); i >= 0 {
		before := records[i].Before.state()
		if now.same(before) || now.same(records[i].After.state()) && !t.inexact {
			return before, nil
		}
		was = before.contents
	}
	contents, err := t.undo(now.contents, was)
	if err != nil {
		return now, fmt.Errorf("take back the change of %s: %w", t.path, err)
	}
	if bytes.Equal(contents, now.contents) && contents != nil {
		return now, nil
	}
	return now.with(t, contents), nil
}

// targetsAnd adds files that were written earlier and would not be today: Podman's hooks in another directory.
func (p plan) targetsAnd(records []record) []target {
	out := slices.Clone(p.targets)
	for _, r := range records {
		if slices.ContainsFunc(out, func(t target) bool { return t.path == r.Path }) {
			continue
		}
		out = append(out, ownTarget(r.Path, r.After.Link, r.After.Contents))
	}
	return out
}

// errSymlink keeps a link to a file in somebody's collection of dotfiles from being replaced by a file.
var errSymlink = errors.New("it is a symbolic link")

// readConfig of an engine.
func (o Options) readConfig(name string) (state, error) {
	s, err := o.read(name)
	if err == nil && s.link {
		err = hint.Add(fmt.Errorf("change %s: %w", name, errSymlink), "replace it by a copy of the file that it leads to")
	}
	return s, err
}

// below a directory in Root.
func (o Options) below(name string) string { return path.Join("/", o.Root, name) }
