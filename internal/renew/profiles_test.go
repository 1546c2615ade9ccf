// SPDX-License-Identifier: Apache-2.0

package renew

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// A profile is in use while a journal has it, whether its process lives or not; one that cannot be read may have any.
func TestProfiles(t *testing.T) {
	dir := t.TempDir()
	under, cut := someHeader("a", "b"), someHeader("c", "d")
	under.Request.Changes.Seccomp, cut.Request.Changes.Seccomp = "/p/1.json", "/p/2.json"
	j := mustBegin(t, dir, under)
	abandon(t, mustBegin(t, dir, cut))
	abandon(t, mustBegin(t, dir, someHeader("e", "f")))
	paths, err := Profiles(dir)
	slices.Sort(paths)
	if want := []string{"/p/1.json", "/p/2.json"}; err != nil || !slices.Equal(paths, want) {
		t.Errorf("Profiles = %q, %v; want %q", paths, err, want)
	}
	if err := j.remove(); err != nil {
		t.Fatal(err)
	}
	if paths, err := Profiles(dir); err != nil || !slices.Equal(paths, []string{"/p/2.json"}) {
		t.Errorf("Profiles = %q, %v after the end of one", paths, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "x"+suffix), []byte("{\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if paths, err := Profiles(dir); err == nil {
		t.Errorf("Profiles = %q beside a journal that is not understood", paths)
	}
}
