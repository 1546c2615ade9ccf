// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"testing"

	"github.com/whittle-sec/whittle/internal/filter"
	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// What an engine's own filter said does not exist while a service was learned is not asked about for each thread that it
// makes; what that filter forbade is, so that somebody who tries it is told of.
func TestDeniedWhileLearned(t *testing.T) {
	number := func(name string) uint32 {
		nr, ok := syscalls.Number(syscalls.X86_64, name)
		if !ok {
			t.Fatal(name)
		}
		return nr
	}
	var run syscalls.Set
	run.Add(number("read"))
	run.Add(number("statx"))
	p := policy.Policy{ABIs: map[syscalls.ABI]*policy.Calls{syscalls.X86_64: {
		Phases: map[policy.Phase]syscalls.Set{policy.Run: run},
		Denied: map[uint32]policy.DeniedCall{
			number("clone3"):  {Errno: policy.ENOSYS, Count: 9},
			number("unshare"): {Errno: policy.EPERM, Count: 1},
			number("statx"):   {Errno: policy.ENOSYS, Count: 1}, // and without that filter it was made
		},
	}}}
	pl := Make(p, Default())
	for name, want := range map[string]struct {
		place Place
		errno int32
	}{
		"clone3": {Shut, policy.ENOSYS}, "unshare": {Held, policy.EPERM},
	} {
		call := syscalls.Call{ABI: syscalls.X86_64, Nr: number(name)}
		if e := pl.tables[call.ABI].entries[call.Nr]; e.Place != want.place {
			t.Errorf("%s is %v: %s", name, e.Place, e.Why)
		}
		a := pl.Answer(Asker{Lane: observe.LaneService, Phase: policy.Run}, call, [6]uint64{})
		if a.Action == policy.Allow || a.Errno != want.errno {
			t.Errorf("%s: %+v", name, a)
		}
	}
	if e := pl.tables[syscalls.X86_64].entries[number("statx")]; e.Place == Shut {
		t.Errorf("statx is shut: %s", e.Why)
	}
}

// Memory that can be written and executed is asked about where nobody was seen to map any, and no other mapping is.
func TestWritableCode(t *testing.T) {
	mmap := syscalls.Call{ABI: syscalls.X86_64, Nr: 9}
	var run syscalls.Set
	run.Add(mmap.Nr)
	var rules []policy.ArgRule
	for _, rights := range []uint64{0, 2, 4} {
		rules = append(rules, policy.ArgRule{Index: 2, Mask: 6, Value: rights})
	}
	for _, limited := range []bool{true, false} {
		calls := &policy.Calls{Phases: map[policy.Phase]syscalls.Set{policy.Run: run}, Args: map[uint32][]policy.ArgRule{}}
		if limited {
			calls.Args[mmap.Nr] = rules
		}
		pl := Make(policy.Policy{ABIs: map[syscalls.ABI]*policy.Calls{mmap.ABI: calls}}, Default())
		for rights := range uint64(8) {
			args := [6]uint64{2: rights}
			want, answer := filter.Allow, policy.Allow
			if limited && rights&6 == 6 {
				want, answer = filter.Notify, policy.Refuse
			}
			for _, rules := range []*filter.Rules{pl.Booting(), pl.Running()} {
				if got := rules.Decide(data(mmap, args)); got != want {
					t.Errorf("limited %v, rights %d: the filter says %v, want %v", limited, rights, got, want)
				}
			}
			got := pl.Answer(Asker{Lane: observe.LaneService, Phase: policy.Boot}, mmap, args)
			if got.Action != answer || got.Arguments != (answer == policy.Refuse) {
				t.Errorf("limited %v, rights %d: %+v", limited, rights, got)
			}
			if got := pl.Answer(Asker{Lane: observe.LaneExec}, mmap, args); got.Action != policy.Allow {
				t.Errorf("limited %v, rights %d, by exec: %+v", limited, rights, got)
			}
		}
	}
}
