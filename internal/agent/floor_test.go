// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"slices"
	"testing"

	"github.com/whittle-sec/whittle/internal/plan"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

func TestRareCallsOfRuntimes(t *testing.T) {
	for s, names := range rare {
		for _, name := range names {
			for _, abi := range []syscalls.ABI{syscalls.X86_64, syscalls.ARM64} {
				if _, ok := syscalls.Number(abi, name); !ok {
					t.Errorf("%v: %s has no call %s", s, abi, name)
				}
			}
		}
	}
	measured := map[syscalls.ABI]syscalls.Set{syscalls.X86_64: syscalls.SetOf(59)}
	for _, tt := range []struct {
		name starting
		want int
	}{{starting{"runc", true}, 20}, {starting{"crun", false}, 9}, {starting{"crun", true}, 3}, {starting{"runsc", false}, 1}} {
		if got := withRare(tt.name, measured)[syscalls.X86_64].Len(); got != tt.want {
			t.Errorf("%v: %d calls, want %d", tt.name, got, tt.want)
		}
	}
	if measured[syscalls.X86_64].Len() != 1 {
		t.Error("what was measured was changed")
	}
}

// Whatever a workload makes itself, the runtime that starts it is refused nothing before somebody can be asked.
func TestNothingShutToTheRuntime(t *testing.T) {
	p := plan.Make(policy.Policy{ABIs: map[syscalls.ABI]*policy.Calls{native: {}}}, planOptions())
	for _, e := range p.Entries() {
		if e.Call.ABI == native && slices.Contains(beforeAnyoneAnswers, e.Call.String()) && e.Place != plan.Open {
			t.Errorf("%s is %v: %s", e.Call, e.Place, e.Why)
		}
	}
}
