// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/whittle-sec/whittle/internal/testenv"
)

func TestHashedOnce(t *testing.T) {
	testenv.NeedRoot(t)
	dir := filepath.Join(t.TempDir(), "runtimes")
	exe := filepath.Join(t.TempDir(), "runc")
	write := func(text string, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(exe, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(exe, mode); err != nil {
			t.Fatal(err)
		}
	}
	get := func() string {
		t.Helper()
		digest, err := hashed(dir, exe, exe)
		if err != nil {
			t.Fatal(err)
		}
		return digest
	}
	write("one", 0o755)
	first := get()
	remembered, err := os.ReadDir(dir)
	if err != nil || len(remembered) != 1 {
		t.Fatalf("remembered: %v, %v", remembered, err)
	}
	// What is remembered is what is said.
	note := filepath.Join(dir, remembered[0].Name())
	if err := os.WriteFile(note, []byte("sha256:noted"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := get(); got != "sha256:noted" {
		t.Errorf("hashed again: %s", got)
	}
	// But not what others may have written, nor of a file that is another by now, nor of one that others may change.
	if err := os.Chmod(note, 0o666); err != nil {
		t.Fatal(err)
	}
	if got := get(); got != first {
		t.Errorf("anybody's note was believed: %s", got)
	}
	write("two", 0o755)
	second := get()
	if second == first {
		t.Error("a new runtime has the old digest")
	}
	write("two", 0o777)
	if got, err := digestName(exe, exe); err == nil {
		t.Errorf("a file that anybody may change is remembered as %s", got)
	}
	if got := get(); got != second {
		t.Errorf("hashed to %s, want %s", got, second)
	}
}
