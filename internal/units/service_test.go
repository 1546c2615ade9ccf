// SPDX-License-Identifier: Apache-2.0

package units

import (
	"strings"
	"testing"
	"time"
)

func TestSpan(t *testing.T) {
	for _, tt := range []struct {
		text string
		want time.Duration // 0: none
	}{
		{"1min 30s", 90 * time.Second},
		{"10s", 10 * time.Second},
		{"1h 2min 3s 4ms 5us", time.Hour + 2*time.Minute + 3*time.Second + 4*time.Millisecond + 5*time.Microsecond},
		{"1.5s", 1500 * time.Millisecond},
		{"2w 1d", 15 * 24 * time.Hour},
		{"infinity", 0},
		{"1y", 0},
		{"", 0},
		{"s", 0},
		{"1", 0},
		{"1e9s", 0},
		{"-1s", 0},
		{"99999999999999999999w", 0},
	} {
		if got, ok := span(tt.text); got != tt.want || ok != (tt.want != 0) {
			t.Errorf("%q: %v, %v; want %v", tt.text, got, ok, tt.want)
		}
	}
	if got := atMost("infinity"); got != patient {
		t.Errorf("without a limit: %v", got)
	}
	if got := atMost("3w"); got != longest {
		t.Errorf("with a long one: %v", got)
	}
}

func FuzzSpan(f *testing.F) {
	for _, text := range []string{"1min 30s", "infinity", "1.5s", "9w 9w"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if d, ok := span(text); d < 0 || !ok && d != 0 {
			t.Errorf("%q: %v, %v", text, d, ok)
		}
		if d := atMost(text); d <= 0 || d > longest {
			t.Errorf("%q: at most %v", text, d)
		}
	})
}

// A container's label names a unit: what systemctl would take for an option, a pattern or another kind of unit is refused.
func TestPlainUnit(t *testing.T) {
	for _, name := range []string{"web.service", "container-web.service", "web@1.service", `a\x2db:c_d.service`, strings.Repeat("x", 247) + ".service"} {
		if !plainUnit(name) {
			t.Errorf("%q is refused", name)
		}
	}
	for _, name := range []string{"", ".service", "web", "web.socket", "*.service", "we?.service", "[a].service", "-H.service", "a/b.service", "a b.service",
		"a\nb.service", "a,b.service", "ä.service", strings.Repeat("x", 248) + ".service"} {
		if plainUnit(name) {
			t.Errorf("%q is not refused", name)
		}
		if _, err := Look(t.Context(), name); err == nil || !strings.Contains(err.Error(), "no name of a service") {
			t.Errorf("look at %q: %v", name, err)
		}
		if err := Restart(t.Context(), name, time.Second); err == nil || !strings.Contains(err.Error(), "no name of a service") {
			t.Errorf("restart %q: %v", name, err)
		}
	}
}
