// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"maps"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/whittle-sec/whittle/internal/syscalls"
	"github.com/whittle-sec/whittle/internal/workload"
)

// Few numbers, names and values, so that two drawn policies meet often.
var (
	genNr   = rapid.Custom(func(t *rapid.T) uint32 { return rapid.SampledFrom([]uint32{0, 1, 2, 41, 59, 435, 600}).Draw(t, "nr") })
	genName = rapid.SampledFrom([]string{"a:0", "a:1", "b:0", "c\x01:0", "?:0", "x; y", ""})
	genRule = rapid.Custom(func(t *rapid.T) ArgRule {
		mask := rapid.SampledFrom([]uint64{1, 3, ^uint64(0)}).Draw(t, "mask")
		return ArgRule{rapid.Uint8Range(0, 2).Draw(t, "index"), mask, rapid.Uint64Range(0, 3).Draw(t, "value") & mask}
	})
	genPhase = rapid.SampledFrom(Phases[:])
	genCount = rapid.OneOf(rapid.Uint64Range(0, 5), rapid.Just(^uint64(0)))
)

func genSet(t *rapid.T, label string) syscalls.Set {
	return syscalls.SetOf(rapid.SliceOfN(genNr, 0, 5).Draw(t, label)...)
}

func genPhases(t *rapid.T) map[Phase]syscalls.Set {
	m := map[Phase]syscalls.Set{}
	for _, p := range rapid.SliceOfN(genPhase, 0, 3).Draw(t, "phases") {
		m[p] = genSet(t, p.String())
	}
	return m
}

func genCalls(t *rapid.T) *Calls {
	names := rapid.SliceOfN(genName, 0, 3)
	return &Calls{
		Phases: genPhases(t), Floor: genSet(t, "floor"), Exec: genSet(t, "exec"),
		Roles: rapid.MapOfN(genName, rapid.Custom(func(t *rapid.T) RoleCalls {
			return RoleCalls{genPhases(t), genSet(t, "birth")}
		}), 0, 3).Draw(t, "roles"),
		Evidence: rapid.MapOfN(genNr, rapid.Custom(func(t *rapid.T) Evidence {
			return Evidence{
				Source: rapid.SampledFrom(append(sources, "else", "")).Draw(t, "source"), Count: genCount.Draw(t, "count"),
				FirstSeen: time.Duration(rapid.IntRange(-1, 9).Draw(t, "first")), LastSeen: time.Duration(rapid.IntRange(0, 9).Draw(t, "last")),
				Phases: PhaseCounts{Boot: genCount.Draw(t, "boot"), Run: genCount.Draw(t, "run")}, Lanes: names.Draw(t, "lanes"),
				Roles: names.Draw(t, "callers"), Rate: rapid.Float64().Draw(t, "rate"),
				Runs: rapid.IntRange(0, 3).Draw(t, "runs"), Reason: genName.Draw(t, "reason"),
			}
		}), 0, 3).Draw(t, "evidence"),
		Denied: rapid.MapOfN(genNr, rapid.Custom(func(t *rapid.T) DeniedCall {
			return DeniedCall{rapid.SampledFrom([]int32{0, EPERM, 13, ENOSYS, 99}).Draw(t, "errno"), genCount.Draw(t, "count")}
		}), 0, 3).Draw(t, "denied"),
		Withheld:    rapid.MapOfN(genNr, genName, 0, 2).Draw(t, "withheld"),
		Quarantined: rapid.MapOfN(genNr, genName, 0, 3).Draw(t, "quarantined"),
		Args:        rapid.MapOfN(genNr, rapid.SliceOfN(genRule, 0, 4), 0, 4).Draw(t, "args"),
	}
}

var genPolicy = rapid.Custom(func(t *rapid.T) Policy {
	names := rapid.SliceOfN(genName, 0, 2)
	return consistent(Policy{
		Workload: workload.Workload{Image: rapid.SampledFrom([]string{"", "r:1", "r:2"}).Draw(t, "image")},
		Complete: rapid.Bool().Draw(t, "complete"), Partial: names.Draw(t, "partial"),
		Account: Account{Runs: rapid.IntRange(0, 3).Draw(t, "runs"), LateRuns: rapid.IntRange(0, 3).Draw(t, "late"), Losses: rapid.MapOfN(genName, genCount, 0, 2).Draw(t, "losses"),
			Recorded: genCount.Draw(t, "recorded"), IOUring: rapid.Bool().Draw(t, "uring"), Gaps: names.Draw(t, "gaps")},
		ABIs: rapid.MapOfN(rapid.SampledFrom(syscalls.ABIs[:2]), rapid.Custom(genCalls), 0, 2).Draw(t, "abis"),
		Settled: Settled{rapid.Bool().Draw(t, "settled"), rapid.Float64Range(0, 1).Draw(t, "p"), genCount.Draw(t, "bursts"),
			rapid.Float64Range(0, 1).Draw(t, "pe"), genCount.Draw(t, "epochs"), rapid.Float64Range(0, 9).Draw(t, "missing"),
			genName.Draw(t, "reason")},
	})
})

// consistent makes a policy as the learner does: late if all its runs were, and partial for a reason.
func consistent(p Policy) Policy {
	p.Account.LateRuns = min(p.Account.LateRuns, p.Account.Runs)
	p.Partial = slices.DeleteFunc(p.Partial, func(why string) bool { return why == "" })
	if n := p.Account.Runs; n > 0 && p.Account.LateRuns == n {
		p.Partial = append(p.Partial, LateReason+"late")
	} else if !p.Complete && len(p.Partial) == 0 {
		p.Partial = []string{"something"}
	}
	p.Complete = len(p.Partial) == 0
	return p
}

// unestimated is p without what the learner will say again, and without rules of what is withheld: a run that made it with any
// arguments is not remembered by them.
func unestimated(p Policy) Policy {
	p.Settled = Settled{Settled: p.Settled.Settled, Bursts: p.Settled.Bursts, Epochs: p.Settled.Epochs}
	for _, calls := range p.ABIs {
		maps.DeleteFunc(calls.Args, func(nr uint32, _ []ArgRule) bool { _, withheld := calls.Withheld[nr]; return withheld })
	}
	return p
}

func same(t *rapid.T, what string, a, b Policy) {
	if diff := cmp.Diff(string(encodeRapid(t, a)), string(encodeRapid(t, b))); diff != "" {
		t.Fatalf("%s:\n%s", what, diff)
	}
}

func encodeRapid(t *rapid.T, p Policy) []byte {
	data, err := Encode(p)
	if err != nil {
		t.Fatalf("Encode: %v", err)
	}
	return data
}

func TestMergeOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := genPolicy.Draw(t, "a"), genPolicy.Draw(t, "b"), genPolicy.Draw(t, "c")
		same(t, "not commutative", Merge(a, b), Merge(b, a))
		same(t, "not associative", unestimated(Merge(Merge(a, b), c)), unestimated(Merge(a, Merge(b, c))))
		same(t, "not normal", Merge(a, b), Normal(Merge(a, b)))
	})
}

func TestMergeWithItself(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := genPolicy.Draw(t, "p")
		if changes := Diff(p, Merge(p, p)); len(changes) > 0 {
			t.Fatalf("merging with itself changed %v", changes)
		}
		if got, want := Merge(p, p).Complete, Normal(p).Complete; got != want {
			t.Fatalf("complete %t became %t", want, got)
		}
	})
}

// Whatever one side allows, the merged policy allows, in every selection and with every arguments. This is invariant 2
// too: a side that lost events is smaller or has fewer rules, and takes nothing from the other.
// What a person withheld from one side is the exception: it is withheld from the result, whatever the other allows.
func TestMergeIsNeverStricter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := genPolicy.Draw(t, "a"), genPolicy.Draw(t, "b")
		m := Merge(a, b)
		withheld := func(p Policy, c syscalls.Call) bool {
			if p.ABIs[c.ABI] == nil {
				return false
			}
			_, ok := p.ABIs[c.ABI].Withheld[c.Nr]
			return ok
		}
		sel := Selection{Phases: rapid.SliceOfN(genPhase, 0, 3).Draw(t, "selection"), Exec: rapid.Bool().Draw(t, "exec")}
		for range 20 {
			c := syscalls.Call{ABI: rapid.SampledFrom(syscalls.ABIs[:2]).Draw(t, "abi"), Nr: genNr.Draw(t, "call")}
			args := [6]uint64(rapid.SliceOfN(rapid.Uint64Range(0, 3), 6, 6).Draw(t, "args"))
			for _, side := range []Policy{a, b} {
				if withheld(a, c) || withheld(b, c) {
					if floor := m.ABIs[c.ABI].Floor; Decide(m, sel, c, args).Action == Allow &&
						!floor.Has(c.Nr) && !syscalls.KernelOwn(c.ABI).Has(c.Nr) {
						t.Fatalf("%v %v%v was withheld and is allowed after merging", c.ABI, c, args)
					}
					continue
				}
				if Decide(side, sel, c, args).Action == Allow && Decide(m, sel, c, args).Action != Allow {
					t.Fatalf("%v %v%v was allowed and is refused after merging", c.ABI, c, args)
				}
			}
		}
		if a, b := Normal(a), Normal(b); m.Complete && !(sound(a) && sound(b) && (a.Complete || b.Complete)) {
			t.Fatalf("complete, but a side is not: %t %q %+v, %t %q %+v", a.Complete, a.Partial, a.Account, b.Complete, b.Partial, b.Account)
		}
	})
}

// Being written changes nothing of what a policy decides.
func TestNormalDecidesTheSame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := genPolicy.Draw(t, "p")
		for range 20 {
			c := syscalls.Call{ABI: rapid.SampledFrom(syscalls.ABIs[:2]).Draw(t, "abi"), Nr: genNr.Draw(t, "call")}
			args := [6]uint64(rapid.SliceOfN(rapid.Uint64Range(0, 3), 6, 6).Draw(t, "args"))
			if was, is := Decide(p, Selection{}, c, args), Decide(Normal(p), Selection{}, c, args); was.Action != is.Action {
				t.Fatalf("%v%v: %v became %v", c, args, was, is)
			}
		}
	})
}

// The same for argument rules alone, over every combination of three small arguments.
func TestMergedRulesAreNeverStricter(t *testing.T) {
	side := rapid.Custom(func(t *rapid.T) Policy {
		var seen syscalls.Set
		if rapid.Bool().Draw(t, "seen") {
			seen = syscalls.SetOf(41)
		}
		return Policy{ABIs: map[syscalls.ABI]*Calls{x86: {Phases: map[Phase]syscalls.Set{Run: seen},
			Args: map[uint32][]ArgRule{41: rapid.SliceOfN(genRule, 0, 4).Draw(t, "rules")}}}}
	})
	rapid.Check(t, func(t *rapid.T) {
		a, b := side.Draw(t, "a"), side.Draw(t, "b")
		m := Merge(a, b)
		for i := range uint64(64) {
			args := [6]uint64{i & 3, i >> 2 & 3, i >> 4}
			allows := func(p Policy) bool {
				return Decide(p, Selection{}, syscalls.Call{ABI: x86, Nr: 41}, args).Action == Allow
			}
			if (allows(a) || allows(b)) && !allows(m) {
				t.Fatalf("%v was allowed and is refused after merging", args)
			}
		}
	})
}

func TestMergeRules(t *testing.T) {
	two, one := ArgRule{0, ^uint64(0), 2}, ArgRule{0, ^uint64(0), 1}
	third := ArgRule{2, ^uint64(0), 7}
	seen := syscalls.SetOf(41)
	side := func(set syscalls.Set, rules ...ArgRule) Policy {
		return Policy{ABIs: map[syscalls.ABI]*Calls{x86: {Phases: map[Phase]syscalls.Set{Run: set}, Args: map[uint32][]ArgRule{41: rules}}}}
	}
	for _, tc := range []struct {
		name string
		a, b Policy
		want []ArgRule
	}{
		{"union", side(seen, two), side(seen, one), []ArgRule{one, two}},
		{"seen without rules", side(seen, two), side(seen), nil},
		{"not seen", side(seen, two), side(syscalls.Set{}), []ArgRule{two}},
		{"ABI not seen", side(seen, two), Policy{}, []ArgRule{two}},
		{"index of one side only", side(seen, two, third), side(seen, one), []ArgRule{one, two}},
		{"no index in common", side(seen, two), side(seen, third), nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, Merge(tc.a, tc.b).ABIs[x86].Args[41]); diff != "" {
				t.Errorf("rules (-want +got):\n%s", diff)
			}
		})
	}
}

func TestMergeLeavesItsInputsAlone(t *testing.T) {
	a, b := example(t), example(t)
	before := encode(t, a)
	m := Merge(a, b)
	for _, c := range m.ABIs {
		c.Phases[Run] = syscalls.Set{}
		clear(c.Evidence)
		clear(c.Roles)
	}
	m.Account.Losses["bursts_full"] = 99
	if diff := cmp.Diff(string(before), string(encode(t, a))); diff != "" {
		t.Errorf("changed:\n%s", diff)
	}
	if got := Merge(a, b).ABIs[x86].Evidence[nr(t, x86, "execve")]; got.Count != 6 || got.Runs != 2 || got.Phases[Run] != 6 {
		t.Errorf("evidence %+v, want the sums", got)
	}
}

func TestMergeOfRunsThatBeganLate(t *testing.T) {
	reads := &Calls{Phases: map[Phase]syscalls.Set{Run: syscalls.SetOf(0)}}
	whole := Policy{Complete: true, Account: Account{Runs: 1}, Settled: Settled{Settled: true, PUnseen: 0.001},
		ABIs: map[syscalls.ABI]*Calls{syscalls.X86_64: reads}}
	cut := Policy{Partial: []string{CutReason + "before the container did"}, Account: Account{Runs: 1, LateRuns: 1}, ABIs: whole.ABIs}
	late := Policy{Partial: []string{LateReason + "2s after the start"}, Account: Account{Runs: 1, LateRuns: 1},
		Settled: Settled{PUnseen: 0.5}, ABIs: whole.ABIs}
	lost := Policy{Partial: []string{"records were lost"}, Account: Account{Runs: 1}}
	for _, tt := range []struct {
		name              string
		a, b              Policy
		complete, settled bool
	}{
		{"late and whole", late, whole, true, true},
		{"late and late", late, late, false, false},
		{"late and cut", late, cut, false, false},
		{"cut and whole", cut, whole, true, true},
		{"late and lost", late, lost, false, false},
		{"lost and whole", lost, whole, false, true},
		{"whole with late with late", Merge(whole, late), late, true, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := Merge(tt.a, tt.b)
			if m.Complete != tt.complete || m.Settled.Settled != tt.settled {
				t.Errorf("complete %t %q, settled %t; want %t, %t", m.Complete, m.Partial, m.Settled.Settled, tt.complete, tt.settled)
			}
		})
	}
}

// Runs that do the same make the estimate better, and a run that does something new does not: else a short job that is run
// again and again would never be known.
func TestMergeEstimates(t *testing.T) {
	run := func(phase Phase, p float64, bursts uint64, nrs ...uint32) Policy {
		return Policy{Complete: true, Account: Account{Runs: 1}, Settled: Settled{PUnseen: p, Bursts: bursts, PUnseenEpoch: 1},
			ABIs: map[syscalls.ABI]*Calls{syscalls.X86_64: {Phases: map[Phase]syscalls.Set{phase: syscalls.SetOf(nrs...)}}}}
	}
	once := func(nrs ...uint32) Policy { return run(Boot, 1, 1, nrs...) } // one burst, alone with all its calls
	for _, tt := range []struct {
		name string
		runs []Policy
		want float64
	}{
		{"a job twice", []Policy{once(1, 2), once(1, 2)}, 1. / 3},
		{"a job three times", []Policy{once(1, 2), once(1, 2), once(1, 2)}, 1. / 4},
		{"something new in the second run", []Policy{once(1), once(1, 2)}, 2. / 3},
		{"nothing in common", []Policy{once(1), once(2)}, 1},
		{"an imported profile is no evidence", []Policy{once(1), run(Boot, 0, 0, 1, 2)}, 1},
		{"a service that restarts", []Policy{run(Run, 0.02, 99, 1, 2), run(Run, 0.01, 99, 1, 2)}, 1. / 199},
		{"a service that died while booting", []Policy{run(Run, 0.01, 99, 1), once(1)}, 1},
		{"a service that was not seen running yet", []Policy{run(Run, 0.01, 99, 1), run(Run, 1, 0, 1)}, 0.01},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := tt.runs[0]
			for _, r := range tt.runs[1:] {
				m = Merge(m, r)
			}
			if got := m.Settled.PUnseen; math.Abs(got-tt.want) > 1e-9 {
				t.Errorf("p = %g, want %g", got, tt.want)
			}
		})
	}
}
