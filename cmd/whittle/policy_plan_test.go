// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// The policies of real services fit on a terminal, in short and in full.
func TestShowFits(t *testing.T) {
	files, err := filepath.Glob("../../internal/learn/testdata/*.policy.json")
	if err != nil || len(files) < 6 {
		t.Fatalf("%d recorded policies: %v", len(files), err)
	}
	for _, file := range files {
		for name, long := range map[string]bool{"short": false, "long": true} {
			t.Run(filepath.Base(file)+" "+name, func(t *testing.T) {
				text, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				p, err := parsePolicy(text)
				if err != nil {
					t.Fatal(err)
				}
				var out bytes.Buffer
				if err := showPolicy(&out, p, long); err != nil {
					t.Fatal(err)
				}
				for line := range strings.Lines(out.String()) {
					if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > width {
						t.Errorf("%d columns: %s", n, line)
					}
				}
				if got := strings.Contains(out.String(), "A SECOND"); got != long {
					t.Errorf("the list of calls is there: %v", got)
				}
			})
		}
	}
}

func TestFold(t *testing.T) {
	for _, test := range []struct {
		name string
		list []string
		want []string
	}{
		{"nothing", nil, []string{""}},
		{"fits", []string{"ab", "cd"}, []string{"ab, cd"}},
		{"the comma has room", []string{"abc", "def", "g"}, []string{"abc, def,", "g"}},
		{"one that is too long", []string{"abcdefghijkl", "m"}, []string{"abcdefghijkl,", "m"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, fold(test.list, ", ", 9)); diff != "" {
				t.Error(diff)
			}
		})
	}
}
