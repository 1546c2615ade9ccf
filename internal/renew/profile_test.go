// SPDX-License-Identifier: Apache-2.0

package renew

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Wherever a renewal is cut off while it replaces a profile, the one that was there comes back, or the new one stays, and
// nothing is left beside it.
func TestReplaceProfile(t *testing.T) {
	const id = "aaaa-bbbb"
	for _, tt := range []struct {
		name    string
		done    func(t *testing.T, path, from string)
		restore bool
		want    string
	}{
		{"it goes on", replace, false, `{"new":1}`},
		{"it goes back", replace, true, `{"old":1}`},
		{"nothing was begun", func(*testing.T, string, string) {}, true, `{"old":1}`},
		{"killed when the old one was kept", func(t *testing.T, path, _ string) {
			before, _ := asides(path, id)
			must(t, os.Link(path, before))
		}, true, `{"old":1}`},
		{"killed when the new one was half written", func(t *testing.T, path, _ string) {
			before, fresh := asides(path, id)
			must(t, os.Link(path, before))
			must(t, os.WriteFile(fresh, []byte(`{"ne`), 0o600))
		}, true, `{"old":1}`},
		{"put back already", func(t *testing.T, path, from string) { replace(t, path, from); must(t, restoreProfile(path, id)) }, true, `{"old":1}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir, from := t.TempDir(), filepath.Join(t.TempDir(), "new")
			path := filepath.Join(dir, "web.json")
			must(t, os.WriteFile(path, []byte(`{"old":1}`), 0o640))
			must(t, os.WriteFile(from, []byte(`{"new":1}`), 0o600))
			tt.done(t, path, from)
			if tt.restore {
				must(t, restoreProfile(path, id))
			} else {
				must(t, forgetProfile(path, id))
			}
			text, err := os.ReadFile(path)
			must(t, err)
			is, err := os.Stat(path)
			must(t, err)
			if string(text) != tt.want || is.Mode() != 0o640 {
				t.Errorf("%s with mode %v, want %s with that of the one before", text, is.Mode(), tt.want)
			}
			if left, _ := os.ReadDir(dir); len(left) != 1 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

func TestReplaceProfileRefuses(t *testing.T) {
	for _, tt := range []struct {
		name string
		make func(t *testing.T, path, from string)
		want string
	}{
		{"no profile", func(t *testing.T, path, from string) { must(t, os.WriteFile(from, []byte(`{"ne`), 0o600)) }, "no JSON"},
		{"a huge one", func(t *testing.T, path, from string) {
			must(t, os.WriteFile(from, []byte(`"`+strings.Repeat("x", maxProfile)+`"`), 0o600))
		}, "no JSON of at most"},
		{"a link", func(t *testing.T, path, from string) {
			must(t, os.Rename(path, path+".1"))
			must(t, os.Symlink(path+".1", path))
		}, "no regular file"},
		{"the same file", func(t *testing.T, path, from string) { must(t, os.Remove(from)); must(t, os.Link(path, from)) }, "no way back"},
		{"gone", func(t *testing.T, path, from string) { must(t, os.Remove(path)) }, "find the unit's profile"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			path, from := filepath.Join(dir, "web.json"), filepath.Join(dir, "new")
			must(t, os.WriteFile(path, []byte(`{"old":1}`), 0o600))
			must(t, os.WriteFile(from, []byte(`{"new":1}`), 0o600))
			tt.make(t, path, from)
			if err := replaceProfile(path, "id", from); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
			before, fresh := asides(path, "id")
			for _, name := range []string{before, fresh} {
				if _, err := os.Lstat(name); err == nil {
					t.Errorf("left: %s", name)
				}
			}
		})
	}
}

func replace(t *testing.T, path, from string) {
	t.Helper()
	must(t, replaceProfile(path, "aaaa-bbbb", from))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
