// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"testing"

	"github.com/whittle-sec/whittle/internal/renew"
)

// Whatever production is not allowed waits until new connections go elsewhere: it may end of what it is refused.
func TestLoopParks(t *testing.T) {
	tests := []struct {
		name string
		done renew.Done
		left bool
	}{
		{"made", renew.Done{Step: renew.StepMake, State: renew.Ended}, false},
		{"formed", renew.Done{Step: renew.StepForm, State: renew.Ended}, false},
		{"about to hold", renew.Done{Step: renew.StepHold, State: renew.Begins}, false},
		{"cannot hold", renew.Done{Step: renew.StepHold, State: renew.Failed}, false},
		{"holds", renew.Done{Step: renew.StepHold, State: renew.Ended}, true},
		{"ready", renew.Done{Step: renew.StepReady, State: renew.Ended}, false},
		{"about to turn", renew.Done{Step: renew.StepTurn, State: renew.Begins}, false},
		{"turned", renew.Done{Step: renew.StepTurn, State: renew.Ended}, true},
		{"stops with nothing to hold", renew.Done{Step: renew.StepStop, State: renew.Begins}, true},
		{"drains with nothing to turn", renew.Done{Step: renew.StepDrain, State: renew.Begins}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newLoopRig(t)
			for _, call := range []string{"sync", "reboot"} { // the second while the loop is about to begin
				if parked, why := r.asks(call); !parked {
					t.Fatalf("%s did not wait: %s", call, why)
				}
			}
			r.move = func(_ renew.Request, tell func(renew.Done)) (renew.Result, error) {
				tell(tt.done)
				if left := len(r.d.waits) == 0; left != tt.left {
					t.Errorf("%d calls wait", len(r.d.waits))
				}
				if parked, _ := r.asks("swapon"); parked == tt.left {
					t.Errorf("another one waits: %v", parked)
				}
				return renew.Result{Outcome: renew.Renewed}, nil
			}
			err := r.d.move(r.ctx, renew.Request{}, func() { r.d.leaves(key{"fake", production}) })
			if err != nil {
				t.Error(err)
			}
		})
	}
}
