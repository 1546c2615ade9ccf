// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/whittle-sec/whittle/internal/filter"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// Whatever the filter below holds, the one above holds too; it is no wider than asked for, and as wide where it may.
func TestAbove(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		older, newer := Make(genPolicy.Draw(t, "older"), Default()).Booting(), Make(genPolicy.Draw(t, "newer"), Default()).Running()
		above := Above(older, newer)
		for range 8 {
			args := [6]uint64{rapid.Uint64Range(0, 3).Draw(t, "a0"), rapid.Uint64Range(0, 3).Draw(t, "a1")}
			for _, abi := range syscalls.ABIs {
				for nr := range uint32(syscalls.MaxNr) {
					d := data(syscalls.Call{ABI: abi, Nr: nr}, args)
					below, want, got := older.Decide(d), newer.Decide(d), above.Decide(d)
					switch {
					case below == filter.Notify && got == filter.Allow:
						t.Fatalf("%v %d: held below and let through above", abi, nr)
					case got != want && (want != filter.Allow || got != filter.Notify):
						t.Fatalf("%v %d: %v became %v", abi, nr, want, got)
					}
				}
			}
		}
		for abi, table := range newer.Tables {
			for nr, action := range table.Actions {
				below := older.Tables[abi]
				if below != nil && below.Actions[nr] == filter.Allow && below.Checks[uint32(nr)].Rules == nil && above.Tables[abi].Actions[nr] != action {
					t.Fatalf("%v %d is open below, and %v became %v", abi, nr, action, above.Tables[abi].Actions[nr])
				}
			}
		}
	})
}

// A plan's own filters stack as they are.
func TestRunningAboveBooting(t *testing.T) {
	for _, name := range recorded {
		p := Make(learned(t, name), Default())
		above := Above(p.Booting(), p.Running())
		for abi, table := range p.Running().Tables {
			if above.Tables[abi].Actions != table.Actions {
				t.Errorf("%s: running changes above booting", name)
			}
		}
	}
}

func BenchmarkMake(b *testing.B) {
	p := learned(b, "postgres")
	for b.Loop() {
		Make(p, Default()).Booting()
	}
}

func BenchmarkAnswer(b *testing.B) {
	p := Make(learned(b, "postgres"), Default())
	clone := syscalls.Call{ABI: x86, Nr: 56}
	asker := service(1, postmaster, false)
	for b.Loop() {
		p.Answer(asker, clone, [6]uint64{})
	}
}
