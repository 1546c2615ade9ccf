// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"testing"
	"time"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/loop"
)

// An agent that no longer knows the engine of a loop that is under way says so, and goes on.
func TestLoopWithoutItsEngine(t *testing.T) {
	r := newLoopRig(t)
	r.asks("sync")
	if !r.turn(loop.InOracle, time.Minute) {
		t.Fatal("there is no oracle")
	}
	r.a.Moving.Makers = map[string]engine.Maker{}
	r.turn(loop.Production, 10*time.Second)
	if r.d.current() == loop.Production || r.d.problem == "" {
		t.Errorf("it is in %s, and its problem is %q", r.d.current(), r.d.problem)
	}
	r.a.Moving.Makers = map[string]engine.Maker{"fake": r.e}
	if !r.turn(loop.Production, 5*time.Minute) {
		t.Errorf("production does not come back: %s, %s", r.d.current(), r.d.problem)
	}
}

// A workload whose oracle was removed is not driven any more, and none of its calls wait for it.
func TestLoopIsOver(t *testing.T) {
	r := newLoopRig(t)
	done := make(chan struct{})
	r.d.removed = true
	r.d.stir()
	go func() { defer close(done); r.d.twin.drive(r.ctx) }()
	<-done
	select {
	case <-r.d.ended:
	default:
		t.Error("whoever removed it is not told")
	}
	if parked, why := r.d.refused(looping{}); parked {
		t.Errorf("a call waits for it: %s", why)
	}
}
