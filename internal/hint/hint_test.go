// SPDX-License-Identifier: Apache-2.0

package hint

import (
	"errors"
	"fmt"
	"testing"
)

func TestOf(t *testing.T) {
	base := errors.New("no such file")
	for _, tc := range []struct {
		name string
		err  error
		want string
	}{
		{"none", base, ""},
		{"nil", nil, ""},
		{"direct", Add(base, "look"), "look"},
		{"wrapped", fmt.Errorf("open: %w", Add(base, "look")), "look"},
		{"the outermost wins", Add(Add(base, "inner"), "outer"), "outer"},
		{"nothing to hint at", Add(nil, "look"), ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := Of(tc.err); got != tc.want {
				t.Errorf("Of(%v) = %q, want %q", tc.err, got, tc.want)
			}
		})
	}
	if err := Add(base, "look"); !errors.Is(err, base) || err.Error() != base.Error() {
		t.Errorf("Add changed the error: %v", err)
	}
}
