// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"strings"
	"testing"
)

const statTail = " S 1 2 3 0 -1 4194624 112 0 0 0 1 2 0 0 20 0 1 0 987654 4096 5 18446744073709551615 1 1\n"

func TestParseStat(t *testing.T) {
	want := stat{parent: 1, flags: 4194624, start: 987654}
	for _, test := range []struct{ name, comm string }{
		{"plain", "redis-server"},
		{"empty", ""},
		{"parentheses", ") (evil) R 1 1 1"},
		{"newlines", "a\n) S 1 2\n(b"},
		{"not text", "\xff\x00)"},
	} {
		t.Run(test.name, func(t *testing.T) {
			want.comm = test.comm
			got, err := parseStat([]byte("17 (" + test.comm + ")" + statTail))
			if err != nil || got != want {
				t.Errorf("got %+v, %v, want %+v", got, err, want)
			}
		})
	}
	for _, bad := range []string{
		"", "17", "17 (a", "17 a)", ")17(", "17 (a)", "17 (a) S 1 2 3",
		"17 (a)" + strings.Replace(statTail, "4194624", "-1", 1),
		"17 (a)" + strings.Replace(statTail, "987654", "99999999999999999999", 1),
	} {
		if got, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("parseStat(%q) = %+v, want an error", bad, got)
		}
	}
}

func TestParseTGID(t *testing.T) {
	for _, test := range []struct {
		name, status string
		want         int
	}{
		{"plain", "Name:\tsh\nUmask:\t0022\nState:\tS (sleeping)\nTgid:\t4711\nNgid:\t0\n", 4711},
		{"a name that looks like it", "Name:\tTgid:\\n1\nTgid:\t12\n", 12},
		{"not visible", "Name:\tsh\nTgid:\t0\n", 0},
		{"cut off", "Name:\tsh\nTgi", 0},
		{"negative", "Tgid:\t-5\n", 0},
		{"too large", "Tgid:\t4294967296\n", 0},
		{"empty", "", 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := parseTGID([]byte(test.status))
			if got != test.want || (err == nil) != (test.want != 0) {
				t.Errorf("got %d, %v, want %d", got, err, test.want)
			}
		})
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("17 (a)"+statTail), "Name:\tsh\nTgid:\t4711\n")
	f.Add([]byte("17 (a) (b)\n)"), "")
	f.Fuzz(func(t *testing.T, line []byte, text string) {
		if s, err := parseStat(line); err == nil && !strings.Contains(string(line), "("+s.comm+")") {
			t.Errorf("name %q is not in %q", s.comm, line)
		}
		if tgid, err := parseTGID([]byte(text)); err == nil && tgid <= 0 {
			t.Errorf("thread group %d of %q", tgid, text)
		}
		// Whatever a program calls itself, the fields behind its name stay what they are.
		s, err := parseStat([]byte("17 (" + string(line) + ")" + statTail))
		if err != nil || s != (stat{comm: string(line), parent: 1, flags: 4194624, start: 987654}) {
			t.Errorf("name %q: %+v, %v", line, s, err)
		}
	})
}
