// SPDX-License-Identifier: Apache-2.0

package workload

import (
	"strings"
	"testing"
)

func TestPrintable(t *testing.T) {
	for _, tc := range []struct {
		name  string
		in    string
		limit int
		want  string
	}{
		{"empty", "", 5, ""},
		{"as it is", "redis", 5, "redis"},
		{"cut", "redis-server", 8, "redis..."},
		{"control characters", "a\x1b[2J\nb\x7f", 20, "a?[2J?b?"},
		{"not ASCII", "héé…", 10, "h???"},
		{"not UTF-8", "a\xffb", 10, "a?b"},
		{"no room for dots", "redis", 2, "re"},
		{"only dots", "redis", 3, "..."},
		{"nothing", "redis", 0, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := Printable(tc.in, tc.limit)
			if got != tc.want {
				t.Errorf("Printable(%q, %d) = %q, want %q", tc.in, tc.limit, got, tc.want)
			}
			// What was made printable is read back as it was written.
			if again := Printable(got, tc.limit); again != got {
				t.Errorf("Printable of %q is %q", got, again)
			}
		})
	}
}

func FuzzPrintable(f *testing.F) {
	f.Add("redis\x00…", 3)
	f.Fuzz(func(t *testing.T, s string, limit int) {
		if limit < 0 || limit > 1000 {
			return
		}
		got := Printable(s, limit)
		if len(got) > limit || strings.ContainsFunc(got, func(r rune) bool { return r < ' ' || r > '~' }) || Printable(got, limit) != got {
			t.Errorf("Printable(%q, %d) = %q", s, limit, got)
		}
	})
}
