// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/whittle-sec/whittle/internal/policy"
)

// TestSum is what merging one after the other comes to, whatever has come, changed and gone.
func TestSum(t *testing.T) {
	names := []string{"read", "write", "openat", "close", "bind", "listen", "execve", "brk"}
	random := rand.New(rand.NewPCG(1, 2))
	live := map[key]policy.Policy{}
	var s sum
	deepest := 0
	for range 800 {
		k := key{"podman", fmt.Sprint(random.IntN(80))}
		if random.IntN(3) == 0 {
			delete(live, k)
			s.remove(k)
		} else {
			p := lesson(false, map[policy.Phase][]string{policy.Boot: names[:random.IntN(8)], policy.Run: names[random.IntN(8):]}).Policy
			p.Account.Runs = 1 + random.IntN(5)
			live[k] = p
			s.put(k, p)
		}
		if random.IntN(4) != 0 {
			continue
		}
		var want policy.Policy
		started := false
		for _, p := range live {
			if started {
				p = policy.Merge(want, p)
			}
			want, started = p, true
		}
		got, some := s.merged()
		deepest = max(deepest, len(s.levels))
		if all, leaves := s.nodes(), len(s.levels[0]); all > leaves+leaves/(fan-1)+len(s.levels) {
			t.Fatalf("%d nodes for %d containers", all, leaves)
		}
		if some != started || s.len() != len(live) {
			t.Fatalf("%v, %d of %d", some, s.len(), len(live))
		}
		want.Settled, got.Settled = policy.Settled{}, policy.Settled{} // an average, which depends on the order a little
		if diff := cmp.Diff(policy.Normal(want), policy.Normal(got)); some && diff != "" {
			t.Fatalf("of %d (-want +got):\n%s", len(live), diff)
		}
	}
	if deepest < 3 {
		t.Errorf("%d levels: it shows little", deepest)
	}
}

func (s *sum) nodes() (n int) {
	for _, level := range s.levels {
		n += len(level)
	}
	return n
}
