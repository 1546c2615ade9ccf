// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"os"
	"path/filepath"
	"testing"
)

func TestNameOf(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(self, link); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name    string
		command []string
		want    string
	}{
		{"by a link", []string{link, "--flag"}, link},
		{"by its own name", []string{self}, self},
		{"another program", []string{"/bin/sh"}, ""},
		{"searched, and another", []string{"sh"}, ""},
		{"relative", []string{"./link"}, ""},
		{"nowhere", []string{"/no/such/file"}, ""},
		{"no command", nil, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := nameOf(tc.command)(os.Getpid()); got != tc.want {
				t.Errorf("name of this process by %q = %q, want %q", tc.command, got, tc.want)
			}
		})
	}
}
