// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxFile bounds a configuration file.
const maxFile = 16 << 20

// state of a file; its contents are nil when there is none.
type state struct {
	contents []byte
	link     bool
	mode     fs.FileMode
	uid, gid int
}

func (s state) exists() bool { return s.contents != nil }

// same contents. Who owns a file, and who may read it, is never changed.
func (s state) same(t state) bool {
	return s.exists() == t.exists() && s.link == t.link && bytes.Equal(s.contents, t.contents)
}

// with other contents, of a target.
func (s state) with(t target, contents []byte) state {
	if contents == nil {
		return state{}
	}
	if !s.exists() {
		s.mode, s.uid, s.gid = 0o644, 0, 0
	}
	s.contents, s.link = contents, t.link
	return s
}

// read a file; that it is not there is no error.
func (o Options) read(name string) (state, error) {
	name = o.below(name)
	st, err := os.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return state{}, nil
	}
	if err != nil {
		return state{}, err
	}
	s := state{mode: st.Mode().Perm(), contents: []byte{}}
	if owner, ok := st.Sys().(*syscall.Stat_t); ok {
		s.uid, s.gid = int(owner.Uid), int(owner.Gid)
	}
	switch {
	case st.Mode().Type() == fs.ModeSymlink:
		to, err := os.Readlink(name)
		s.contents, s.link = []byte(to), true
		return s, err
	case !st.Mode().IsRegular():
		return s, fmt.Errorf("read %s: it is no file", name)
	}
	f, err := os.Open(name)
	if err != nil {
		return s, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return s, fmt.Errorf("read %s: %w", name, err)
	}
	if len(data) > maxFile {
		return s, fmt.Errorf("read %s: more than %d bytes", name, maxFile)
	}
	s.contents = append(s.contents, data...)
	return s, nil
}

// write a file so that a reader sees the old or the new one, with the directories on the way; or remove it.
func (o Options) write(name string, s state) error {
	full := o.below(name)
	if !s.exists() {
		if err := os.Remove(full); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		return err
	}
	temp := full + ".whittle-new"
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) { // of an install that was killed
		return err
	}
	if err := s.create(temp); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	if err := os.Rename(temp, full); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	return nil
}

func (s state) create(name string) error {
	if s.link {
		return os.Symlink(string(s.contents), name)
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(s.contents)
	if err == nil && os.Geteuid() == 0 {
		err = f.Chown(s.uid, s.gid)
	}
	if err == nil {
		err = f.Chmod(s.mode)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// stateDir is Whittle's. journalFile remembers what was before, so that all of it can be taken back.
const (
	stateDir    = "/var/lib/whittle"
	journalFile = stateDir + "/install.json"
)

type journal struct {
	Engines map[string][]record `json:"engines"`
	// Dirs were made for them, parents first.
	Dirs []string `json:"dirs,omitempty"`
}

// record of a file that was changed.
type record struct {
	Path   string `json:"path"`
	Before saved  `json:"before"`
	After  saved  `json:"after"`
}

// saved is a state in JSON.
type saved struct {
	Exists   bool        `json:"exists"`
	Link     bool        `json:"link,omitempty"`
	Mode     fs.FileMode `json:"mode,omitempty"`
	UID      int         `json:"uid,omitempty"`
	GID      int         `json:"gid,omitempty"`
	Contents []byte      `json:"contents,omitempty"`
}

func (s state) saved() saved {
	return saved{Exists: s.exists(), Link: s.link, Mode: s.mode, UID: s.uid, GID: s.gid, Contents: s.contents}
}

func (s saved) state() state {
	if !s.Exists {
		return state{}
	}
	return state{contents: append([]byte{}, s.Contents...), link: s.Link, mode: s.Mode.Perm(), uid: s.UID, gid: s.GID}
}

func (o Options) readJournal() (journal, error) {
	j := journal{Engines: map[string][]record{}}
	s, err := o.read(journalFile)
	if err != nil || !s.exists() {
		return j, err
	}
	if err := json.Unmarshal(s.contents, &j); err != nil {
		return j, fmt.Errorf("understand %s: %w", journalFile, err)
	}
	if j.Engines == nil {
		j.Engines = map[string][]record{}
	}
	return j, nil
}

// writeJournal, or remove it with the directories that are empty then: others may use them meanwhile.
func (o Options) writeJournal(j journal) error {
	if len(j.Engines) == 0 {
		err := o.write(journalFile, state{})
		for _, dir := range slices.Backward(j.Dirs) {
			_ = unix.Rmdir(o.below(dir)) // not empty, or gone
		}
		return err
	}
	text, err := json.MarshalIndent(j, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s: %w", journalFile, err)
	}
	return o.write(journalFile, state{contents: append(text, '\n'), mode: 0o600})
}

// missingDirs on the way to a file, parents first.
func (o Options) missingDirs(name string, known []string) (missing []string) {
	for dir := path.Dir(name); dir != "/"; dir = path.Dir(dir) {
		if _, err := os.Lstat(o.below(dir)); err == nil {
			break
		}
		if !slices.Contains(known, dir) {
			missing = append(missing, dir)
		}
	}
	slices.Reverse(missing)
	return missing
}

// apply changes. New records are journaled before the first change and old ones forgotten after the last, so that a crash at
// any point leaves nothing that Uninstall does not know. An error takes back what was done.
func (o Options) apply(changes []Change, j journal, records []record) error {
	old := j.Engines[o.Engine]
	note := func(r []record) error {
		if len(r) == 0 {
			delete(j.Engines, o.Engine)
		} else {
			j.Engines[o.Engine] = r
		}
		return o.writeJournal(j)
	}
	if len(records) > 0 {
		for _, c := range append(changes, Change{Path: journalFile}) {
			j.Dirs = append(j.Dirs, o.missingDirs(c.Path, j.Dirs)...)
		}
		if err := note(records); err != nil {
			return fmt.Errorf("note what will be changed: %w", err)
		}
	}
	for i, c := range changes {
		err := o.write(c.Path, c.after)
		if err == nil {
			continue
		}
		errs := []error{fmt.Errorf("change %s: %w", c.Path, err)}
		for _, done := range changes[:i] {
			errs = append(errs, o.write(done.Path, done.before))
		}
		return errors.Join(append(errs, note(old))...)
	}
	if len(records) > 0 {
		return nil
	}
	return note(nil)
}
