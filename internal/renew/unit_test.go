// SPDX-License-Identifier: Apache-2.0

package renew

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/whittle-sec/whittle/internal/engine/process"
)

// What a unit has started by itself since its profile was replaced is not taken for the predecessor.
func TestUntouched(t *testing.T) {
	self, err := process.Open(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	for _, tt := range []struct {
		name  string
		done  []Step
		alive bool
		state string
		job   string
		want  bool
	}{
		{"it serves", []Step{StepProfile, StepForm}, true, "active", "", true},
		{"another serves since", []Step{StepProfile, StepForm}, false, "active", "", false},
		{"it does not start", []Step{StepProfile}, false, "failed", "", false},
		{"it is about to start", []Step{StepProfile}, false, "inactive", "17", false},
		{"somebody has stopped it", []Step{StepProfile}, false, "inactive", "", true},
		{"the profile is the old one", nil, false, "active", "", true},
		{"it was restarted", []Step{StepProfile, StepRestart}, false, "active", "", false},
		{"it was to be restarted", []Step{StepProfile, StepRestart}, true, "active", "", true},
		{"it is being restarted", []Step{StepProfile, StepRestart}, true, "deactivating", "17", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			script := fmt.Sprintf("#!/bin/sh\nprintf 'LoadState=loaded\\nMainPID=0\\nActiveState=%s\\nJob=%s\\n'\n", tt.state, tt.job)
			if err := os.WriteFile(filepath.Join(dir, "systemctl"), []byte(script), 0o755); err != nil {
				t.Fatal(err)
			}
			t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
			p := &passage{journal: &journal{head: header{Plan: Plan{Unit: "web.service", Profile: "/etc/whittle/web.json"}}}}
			for _, s := range tt.done {
				p.entries = append(p.entries, entry{Step: s})
			}
			if tt.alive {
				p.old = self
			}
			if got := p.untouched(t.Context()); got != tt.want {
				t.Errorf("untouched: %v, want %v", got, tt.want)
			}
		})
	}
}
