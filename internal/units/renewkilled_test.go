// SPDX-License-Identifier: Apache-2.0

package units_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/whittle-sec/whittle/internal/renew"
)

// When a renewal is killed before and after what it may not leave half done, --recover leaves the unit with one of the two profiles, and not with a part of both.
func TestRenewUnitKilled(t *testing.T) {
	b := upUnits(t)
	for _, tt := range []struct {
		name, address string
		steps         []renew.Step
	}{
		{"web", socketAddress, []renew.Step{renew.StepProfile, renew.StepRestart, renew.StepReady, renew.StepTurn}},
		{"plain", plainAddress, []renew.Step{renew.StepHold, renew.StepListen, renew.StepRelease}},
	} {
		serves := 1
		for _, step := range tt.steps {
			t.Run(tt.name+" at "+string(step), func(t *testing.T) {
				b.t = t
				next := 3 - serves
				request := fmt.Sprintf(`{"container":%q,"changes":{"seccomp":"/t/%d.json"}}`, tt.name, next)
				out, err := b.Try("sh", "-c", fmt.Sprintf("echo '%s' | /t/renewer /run/p.sock /t/state/renew %s; echo ended $?", request, step))
				if err != nil || !strings.Contains(out, "ended 137") {
					t.Fatalf("it was not killed: %v: %s", err, out)
				}
				if out, err := b.Try("/t/whittle", "--state=/t/state", "renew", tt.name, "--engine=podman", "--podman=/run/p.sock"); err == nil || !strings.Contains(err.Error(), "--recover") {
					t.Errorf("another one before it is recovered: %v: %s", err, out)
				}
				began := time.Now()
				out, err = b.Try("/t/whittle", "--state=/t/state", "--json", "renew", "--recover", "--engine=podman", "--podman=/run/p.sock")
				var results []renew.Result
				if err != nil || json.Unmarshal([]byte(out), &results) != nil || len(results) != 1 {
					t.Fatalf("recover: %v: %s", err, out)
				}
				t.Logf("%s in %v: %s", results[0].Outcome, time.Since(began).Round(time.Millisecond), results[0].Why)
				switch results[0].Outcome {
				case renew.Renewed:
					serves = next
				case renew.RolledBack:
				default:
					t.Errorf("recover: %s", describe(results))
				}
				forward := step != renew.StepProfile && step != renew.StepForm && step != renew.StepHold && step != renew.StepRestart
				if forward != (results[0].Outcome == renew.Renewed) {
					t.Errorf("%s: %s", step, results[0].Outcome)
				}
				b.holds(tt.name, tt.address, 1000+serves)
			})
		}
	}
}
