// SPDX-License-Identifier: Apache-2.0

package ward

import (
	"os"
	"testing"
	"time"

	"github.com/whittle-sec/whittle/internal/kernel"
	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/supervise"
)

// A service may be ready before it has booted: the boot goes on while it is needed, and not for ever.
func TestBootEndsQuietly(t *testing.T) {
	const exe = "/usr/bin/redis"
	k := &fake{who: kernel.Who{Lane: observe.LaneService, Role: observe.Role{Exe: exe}}, known: true, stage: observe.StageBoot}
	now := time.Unix(1000, 0)
	w := New(k, 1, 1, orders(t, exe), Enforce, func() time.Time { return now })
	ask := func(after time.Duration, name string) bool {
		now = now.Add(after)
		return w.Judge(supervise.Held{TID: os.Getpid(), Call: number(t, name)}).Allow
	}
	if !ask(0, "bind") {
		t.Error("refused while booting")
	}
	k.stage = observe.StageRun
	for range 3 {
		if !ask(bootQuiet*3/4, "bind") {
			t.Error("refused while the boot goes on")
		}
	}
	if !ask(bootQuiet*3/4, "execve") || w.Phase() != policy.Boot {
		t.Error("a call of every phase, within the quiet time, ended the boot")
	}
	if ask(bootQuiet/2, "bind") || w.Phase() != policy.Run {
		t.Error("allowed after a quiet time")
	}
	if ask(0, "bind") {
		t.Error("asking begins the boot again")
	}
	// Whoever keeps asking has an end, too.
	k.stage = observe.StageBoot
	w = New(k, 1, 1, orders(t, exe), Enforce, func() time.Time { return now })
	ask(0, "bind")
	k.stage = observe.StageRun
	for began := now; ask(bootQuiet/2, "bind"); {
		if now.Sub(began) > 2*bootMost {
			t.Fatal("a boot without end")
		}
	}
	// Nobody saw this one boot.
	w = New(k, 1, 1, orders(t, exe), Enforce, func() time.Time { return now })
	if ask(0, "bind") {
		t.Error("a container that was running before has a boot")
	}
}
