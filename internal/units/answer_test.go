// SPDX-License-Identifier: Apache-2.0

package units

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The state of a unit with a long command is not taken for another because the answer is long.
func TestLongAnswer(t *testing.T) {
	for _, tt := range []struct {
		name string
		size string
		want string // the error
	}{
		{"a long command", "300000", ""},
		{"an endless one", "3000000", "answers with more than"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			script := "#!/bin/sh\necho ExecStart=$(head -c " + tt.size + " /dev/zero | tr '\\0' x)\nprintf 'LoadState=loaded\\nActiveState=active\\n'\n"
			if err := os.WriteFile(filepath.Join(dir, "systemctl"), []byte(script), 0o755); err != nil {
				t.Fatal(err)
			}
			t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
			is, err := Show(t.Context(), "web.service")
			if tt.want == "" && (err != nil || !is.Loaded || !is.Runs()) {
				t.Errorf("it runs: %v, %v", is.Runs(), err)
			}
			if tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}
