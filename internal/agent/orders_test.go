// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"testing"

	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// TestSharedOrders: containers share their orders until something else is allowed, or held.
func TestSharedOrders(t *testing.T) {
	nr := func(name string) uint32 {
		n, ok := syscalls.Number(syscalls.X86_64, name)
		if !ok {
			t.Fatalf("no call %s", name)
		}
		return n
	}
	make := func(rate float64, names ...string) policy.Policy {
		var set syscalls.Set
		evidence := map[uint32]policy.Evidence{}
		for _, name := range names {
			set.Add(nr(name))
			evidence[nr(name)] = policy.Evidence{Rate: rate, Count: uint64(rate * 1000)}
		}
		return policy.Policy{ABIs: map[syscalls.ABI]*policy.Calls{
			syscalls.X86_64: {Phases: map[policy.Phase]syscalls.Set{policy.Run: set}, Evidence: evidence},
		}}
	}
	base := make(0.01, "read", "connect")
	for _, tt := range []struct {
		name     string
		key      orderKey
		p        policy.Policy
		revision int
		shared   bool
	}{
		{"the same", orderKey{workload: "w"}, base, 1, true},
		{"more evidence", orderKey{workload: "w"}, make(0.02, "read", "connect"), 1, true},
		{"a call that is hot now", orderKey{workload: "w"}, make(1e6, "read", "connect"), 1, false},
		{"another call", orderKey{workload: "w"}, make(0.01, "read", "connect", "bind"), 1, false},
		{"another revision", orderKey{workload: "w"}, base, 2, false},
		{"another workload", orderKey{workload: "x"}, base, 1, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var s sharedOrders
			first := s.of(orderKey{workload: "w"}, base, 1)
			if got := s.of(tt.key, tt.p, tt.revision) == first; got != tt.shared {
				t.Errorf("of(%v, %v, %d) is the first one: %v, want %v", tt.key, tt.p.ABIs[syscalls.X86_64], tt.revision, got, tt.shared)
			}
		})
	}
}
