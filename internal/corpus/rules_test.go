// SPDX-License-Identifier: Apache-2.0

package corpus

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

func call(t testing.TB, abi syscalls.ABI, name string) syscalls.Call {
	t.Helper()
	nr, ok := syscalls.Number(abi, name)
	if !ok {
		t.Fatalf("%s has no %s", abi, name)
	}
	return syscalls.Call{ABI: abi, Nr: nr}
}

func did(t testing.TB, abi syscalls.ABI, names ...string) (s syscalls.Set) {
	t.Helper()
	for _, name := range names {
		s.Add(call(t, abi, name).Nr)
	}
	return s
}

// masters are services of which some fork workers and signal them, and the others do not. What the first of them does is in
// its own words: openat and tgkill.
func masters(with, without int) *Corpus {
	var all []Service
	for i := range with + without {
		s := Service{Name: fmt.Sprintf("s%02d", i)}
		calls := []string{"close", "open", "read"}
		if i < with {
			calls = append(calls, "clone", "wait4", "tkill")
		}
		if i == 0 {
			calls = []string{"close", "openat", "read", "clone3", "wait4", "tgkill"}
		}
		s.Roles = []Role{{Exe: "/bin/" + s.Name, Stage: observe.StageRun, Calls: calls}}
		s.Bursts = []Burst{{Stage: observe.StageRun, Calls: calls, Count: 1}}
		all = append(all, s)
	}
	return New(all)
}

func TestBest(t *testing.T) {
	rules := masters(4, 12).Rules()
	for _, tt := range []struct {
		name, call string
		abi        syscalls.ABI
		did        []string
		want       string // If, "" for no rule
	}{
		{"what masters do", "tkill", syscalls.X86_64, []string{"read", "clone"}, "clone"},
		{"its equivalent", "tgkill", syscalls.X86_64, []string{"read", "clone"}, "clone"},
		{"after an equivalent", "tkill", syscalls.X86_64, []string{"read", "clone3"}, "clone3"},
		{"arm64 has neither open nor fork", "tgkill", syscalls.ARM64, []string{"read", "openat", "clone"}, "clone"},
		{"i386 has other numbers", "tgkill", syscalls.I386, []string{"read", "clone"}, "clone"},
		{"what everybody does says little", "tkill", syscalls.X86_64, []string{"read", "open", "close"}, ""},
		{"a call that nobody makes", "ptrace", syscalls.X86_64, []string{"read", "clone", "wait4"}, ""},
		{"nothing was done", "tkill", syscalls.X86_64, nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rule, ok := rules.Best(call(t, tt.abi, tt.call), did(t, tt.abi, tt.did...))
			if !ok {
				rule.If = []string{""}
			}
			if len(rule.If) != 1 || rule.If[0] != tt.want {
				t.Fatalf("Best(%s after %s) = %+v, want If %q", tt.call, tt.did, rule, tt.want)
			}
			if !ok {
				return
			}
			if rule.Then != tt.call || rule.Confidence != 1 || rule.Support != 0.25 || rule.Of != 16 {
				t.Errorf("the rule is %+v", rule)
			}
			if want := []string{"s00", "s01", "s02", "s03"}; !cmp.Equal(rule.Sources, want) {
				t.Errorf("Sources = %q, want %q", rule.Sources, want)
			}
		})
	}
}

// A rule that one service follows is none, however often it does.
func TestOneServiceIsNoRule(t *testing.T) {
	c := masters(1, 9)
	c.Services()[0].Bursts[0].Count = 1 << 40
	c = New(c.Services())
	if rule, ok := c.Rules().Best(call(t, syscalls.X86_64, "tkill"), did(t, syscalls.X86_64, "clone")); ok {
		t.Errorf("Best = %+v, of one service alone", rule)
	}
}

// Counts of one service change nothing of what others do.
func TestServicesWeighTheSame(t *testing.T) {
	base := masters(4, 4)
	loud := slices.Clone(base.Services())
	loud[7].Bursts = []Burst{{Calls: []string{"clone", "read"}, Count: 1 << 50}}
	loud[7].Roles = []Role{{Exe: "/bin/loud", Calls: []string{"clone", "read"}}}
	rule, ok := New(loud).Rules().Best(call(t, syscalls.X86_64, "tkill"), did(t, syscalls.X86_64, "clone"))
	if !ok || rule.Confidence < 0.79 || rule.Confidence > 0.81 {
		t.Errorf("Best = %+v, want a confidence of 4 services in 5", rule)
	}
}

func TestEmpty(t *testing.T) {
	if rule, ok := New(nil).Rules().Best(call(t, syscalls.X86_64, "tkill"), did(t, syscalls.X86_64, "clone")); ok {
		t.Errorf("Best of no corpus = %+v", rule)
	}
	if _, ok := masters(4, 4).Rules().Best(syscalls.Call{ABI: 77, Nr: 5000}, syscalls.Set{}); ok {
		t.Error("a rule for a call that does not exist")
	}
}

// Of two that ask at once for what is not mined yet, both get it (run with -race).
func TestBestAtOnce(t *testing.T) {
	rules := masters(4, 4).Rules()
	done := make(chan bool)
	before := did(t, syscalls.X86_64, "clone", "wait4", "tkill")
	asked := []string{"tkill", "wait4", "clone", "tkill"}
	for _, name := range asked {
		then := call(t, syscalls.X86_64, name)
		go func() { _, ok := rules.Best(then, before); done <- ok }()
	}
	for range asked {
		if !<-done {
			t.Error("no rule")
		}
	}
}
