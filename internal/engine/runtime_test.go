// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"os"
	"path/filepath"
	"testing"
)

func TestDigests(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "runc")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(name+".new", []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(name+".new", name); err != nil {
			t.Fatal(err)
		}
	}
	var d Digests
	const abc = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
	write("abc")
	for range 2 { // read, then remembered
		got, err := d.Of(name)
		if err != nil || got != abc {
			t.Fatalf("Of(abc) = %q, %v; want %q", got, err, abc)
		}
	}
	if len(d.known) != 1 {
		t.Errorf("%d files remembered, want 1", len(d.known))
	}
	write("abd") // the same size: only the identity tells
	got, err := d.Of(name)
	if err != nil || got == abc {
		t.Errorf("after the file was replaced: %q, %v", got, err)
	}
	for _, bad := range []string{dir, filepath.Join(dir, "absent"), "/dev/null"} {
		if got, err := d.Of(bad); err == nil {
			t.Errorf("Of(%s) = %q", bad, got)
		}
	}
}

func TestResolveRuntime(t *testing.T) {
	dir := t.TempDir()
	real := filepath.Join(dir, "runc-1.1")
	if err := os.WriteFile(real, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "runc")
	if err := os.Symlink("runc-1.1", link); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, said string
		want       Runtime
	}{
		{"path", real, Runtime{Name: "runc-1.1", Path: real}},
		{"link", link, Runtime{Name: "runc", Path: real}},
		{"absent", dir + "/no", Runtime{Name: "no"}},
		{"unknown name", "no-such-runtime", Runtime{Name: "no-such-runtime"}},
		{"relative", "../runc", Runtime{Name: "runc"}},
		{"directory", dir, Runtime{Name: filepath.Base(dir)}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := ResolveRuntime(tt.said); got != tt.want {
				t.Errorf("ResolveRuntime(%q) = %+v, want %+v", tt.said, got, tt.want)
			}
		})
	}
}
