// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"testing"

	"github.com/whittle-sec/whittle/internal/renew"
)

// Whatever production is not allowed waits until it is being stopped: it may end of what it is refused, and by then who connects
// waits elsewhere, or is served by the oracle.
func TestLoopParks(t *testing.T) {
	for _, stops := range []renew.Step{renew.StepStop, renew.StepDrain} {
		r := newLoopRig(t)
		asks := func(call string, want bool) {
			t.Helper()
			if parked, why := r.asks(call); parked != want {
				t.Errorf("%s waits: %v, want %v (%s)", call, parked, want, why)
			}
		}
		asks("sync", true)
		asks("reboot", true) // while the loop is about to begin
		left := make(chan bool)
		r.move = func(_ renew.Request, tell func(renew.Done)) (renew.Result, error) {
			for _, step := range []renew.Step{renew.StepMake, renew.StepForm, renew.StepHold, renew.StepReady, renew.StepTurn} {
				tell(renew.Done{Step: step, State: renew.Begins})
				tell(renew.Done{Step: step, State: renew.Ended})
			}
			asks("swapon", true)
			if n := len(r.d.waits); n != 3 {
				t.Errorf("%d calls wait", n)
			}
			tell(renew.Done{Step: stops, State: renew.Begins})
			<-left
			asks("swapoff", false)
			return renew.Result{Outcome: renew.Renewed}, nil
		}
		err := r.d.move(r.ctx, renew.Request{}, func() {
			r.d.leaves(key{"fake", production})
			left <- true
		})
		if n := len(r.d.waits); err != nil || n != 0 {
			t.Errorf("%d calls wait, %v", n, err)
		}
	}
}
