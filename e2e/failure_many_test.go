// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestManySupervised at a time: each comes up under its filter and has its calls answered, and the agent needs little for
// each.
func TestManySupervised(t *testing.T) {
	ms := newMasters(t)
	warm := ms.start(t, "warm")
	warm.works(1)
	const count = 200
	before, began := ms.d.rss(), time.Now()
	servants := make([]*servant, count)
	// As many at a time as the processors can start: a hook waits two seconds for its agent, and then its container starts
	// without.
	atOnce(t, count, 8, func(_ context.Context, i int) (err error) {
		servants[i], err = ms.launch(t, fmt.Sprintf("one-of-many-%d", i))
		return err
	})
	if t.Failed() {
		t.Fatal(ms.d.log)
	}
	up := time.Since(began)
	eventually(t, "all are supervised", func() (bool, string) {
		supervised := 0
		for _, c := range ms.d.status().Containers {
			if c.Supervision != nil && c.Supervision.Listeners > 0 {
				supervised++
			}
		}
		return supervised == count+1, fmt.Sprint(supervised)
	})
	all := time.Since(began)
	for _, s := range servants {
		s.connect()
		s.allowed(unix.SYS_PERSONALITY, 5)
		s.refused(1)
	}
	each := (ms.d.rss() - before) / count
	t.Logf("%d containers in %v, all supervised in %v; %d KB of the agent's memory for each", count, up.Round(time.Millisecond),
		all.Round(time.Millisecond), each)
	if each > 256 {
		t.Errorf("%d KB of the agent's memory for each container", each)
	}
	for _, s := range servants {
		s.send("quit")
	}
	for _, s := range servants {
		s.awaitEnd()
	}
	warm.quit()
	ms.d.forgotten()
	if n := len(listenersOf(ms.d.cmd.Process.Pid)); n != 0 {
		t.Errorf("%d listeners are left", n)
	}
	if left := ms.left(); len(left) > 0 {
		t.Errorf("%d records are left: %+v", len(left), left[0])
	}
}
