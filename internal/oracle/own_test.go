// SPDX-License-Identifier: Apache-2.0

package oracle

import "testing"

func TestStandsFor(t *testing.T) {
	for _, tt := range []struct {
		twin, production string
		want             bool
	}{
		{"/usr/bin/redis-server", "/usr/local/bin/redis-server", true},
		{"/opt/redis-server-asan", "/usr/bin/redis-server", true},
		{"/usr/libexec/valgrind/memcheck-amd64-linux", "/usr/bin/redis-server", true},
		{"/bin/sh", "/usr/bin/redis-server", false},
		{"/usr/bin/redis", "/usr/bin/redis-server", false},
		{"/bin/sh", "", false},
		{"", "/bin/sh", false},
	} {
		if got := Alike(tt.twin, tt.production); got != tt.want {
			t.Errorf("Alike(%q, %q) = %v", tt.twin, tt.production, got)
		}
	}
}

// TestLaunches: valgrind's way from its command to its tool, as strace shows it, and nothing that an intruder starts later.
func TestLaunches(t *testing.T) {
	for _, tt := range []struct {
		kind    Kind
		program string
		boot    bool
		want    bool
	}{
		{Valgrind, "/usr/bin/dash", true, true},
		{Valgrind, "/usr/bin/dash", false, false},
		{Valgrind, "/usr/bin/valgrind.bin", false, true},
		{Valgrind, "/usr/libexec/valgrind/memcheck-amd64-linux", true, false},
		{Valgrind, "", true, false},
		{Sanitizer, "/usr/bin/valgrind.bin", true, false},
	} {
		if got := (Spec{Kind: tt.kind}).Launches(tt.program, tt.boot); got != tt.want {
			t.Errorf("%s, %q, boot %v: %v", tt.kind, tt.program, tt.boot, got)
		}
	}
}
