// SPDX-License-Identifier: Apache-2.0

package judge

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

func TestDecideZeroRefuses(t *testing.T) {
	var v Verdict
	if v != Refuse || (Decision{}).Verdict != Refuse {
		t.Error("the zero verdict does not refuse")
	}
	if d := decide(nil, terms{}); d.Verdict > Ask {
		t.Errorf("without votes: %v", d.Verdict)
	}
}

// favour is a vote's place in the order of evidence: how much it speaks for the call.
func favour(v Vote) int {
	switch v.Stance {
	case Veto:
		return -2
	case Against:
		return -1
	case For:
		return v.Points
	}
	return 0
}

var anyVote = rapid.Custom(func(t *rapid.T) Vote {
	v := Vote{Stance: rapid.SampledFrom([]Stance{Silent, For, For, For, Against, Veto}).Draw(t, "stance")}
	if v.Stance == For {
		v.Points = rapid.IntRange(0, 4).Draw(t, "points")
	}
	return v
})

// TestRuleIsMonotone in each vote and in the level, whatever the votes are.
func TestRuleIsMonotone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		votes := rapid.SliceOfN(anyVote, 1, judges).Draw(t, "votes")
		for i := range votes {
			votes[i].Judge = Names[i]
		}
		asked := terms{level: rapid.SampledFrom([]Level{Harmless, Ordinary, Sensitive, Grave, Forbidden}).Draw(t, "level")}
		if rapid.Bool().Draw(t, "once") {
			asked.once = "so"
		}
		before := decide(votes, asked)
		if asked.level < Forbidden {
			riskier := asked
			riskier.level++
			if after := decide(votes, riskier); after.Verdict > before.Verdict {
				t.Fatalf("%v at %v, %v at %v", before.Verdict, asked.level, after.Verdict, riskier.level)
			}
		}
		i := rapid.IntRange(0, len(votes)-1).Draw(t, "judge")
		other := anyVote.Draw(t, "other")
		other.Judge = votes[i].Judge
		changed := append([]Vote(nil), votes...)
		changed[i] = other
		after := decide(changed, asked)
		if favour(other) >= favour(votes[i]) && after.Verdict < before.Verdict {
			t.Fatalf("%v with %+v, %v with %+v", before.Verdict, votes[i], after.Verdict, other)
		}
		for _, v := range votes {
			if v.Stance == Veto && before.Verdict != Refuse {
				t.Fatalf("a veto, and %v", before.Verdict)
			}
		}
		if w := weigh(votes, asked); w.Verdict != before.Verdict || w.Given != before.Given || w.Needed != before.Needed {
			t.Fatalf("weigh %+v, decide %+v", w, before)
		}
	})
}

// TestLevelsAreOrdered: each asks for more than the one before, to pass and to be learned.
func TestLevelsAreOrdered(t *testing.T) {
	for l := range Forbidden {
		if need[l+1] <= need[l] || need[l+1]+margin[l+1] <= need[l]+margin[l] {
			t.Errorf("%v asks for no more than %v", l+1, l)
		}
	}
}

// one rule, for every call.
type only struct{ rule *Rule }

func (o only) Best(c syscalls.Call, _ syscalls.Set) (r Rule, ok bool) {
	if o.rule == nil {
		return r, false
	}
	return *o.rule, true
}

// evidence by how much of each kind there is; a larger number is more of it.
type amount struct {
	origin, carried, needed, replicas, lower, lift, sources int
}

var (
	classes  = []Class{Anonymous, Stack, Heap, Memfd, Foreign, Writable, Unknown, Vdso, File}
	carriers = []Carrier{None, NotRead, Imports, Contains}
)

func (a amount) evidence() (Evidence, Associations) {
	e := Evidence{Origin: Origin{Class: classes[a.origin]}, Import: Import{Carrier: carriers[a.carried]},
		Fleet: Fleet{Replicas: a.replicas, Needed: a.needed}}
	if a.lower == 0 {
		return e, only{}
	}
	return e, only{&Rule{Lower: float64(a.lower) / 10, Lift: float64(a.lift) / 2, Sources: strings.Fields("a b c d")[:a.sources]}}
}

// TestPanelIsMonotone: more of any kind of evidence never makes the verdict on a case stricter.
func TestPanelIsMonotone(t *testing.T) {
	policies := []policy.Policy{learned(t, "nginx"), learned(t, "postgres"), learned(t, "redis"), httpd(t), {}}
	roles := []string{nginxMaster, nginxWorker, postmaster, backend, redisServer, apache, "/bin/sh:0", "", "?:0"}
	rapid.Check(t, func(t *rapid.T) {
		p := rapid.SampledFrom(policies).Draw(t, "policy")
		q := Question{
			Call:      syscalls.Call{ABI: syscalls.X86_64, Nr: rapid.Uint32Range(0, 480).Draw(t, "nr")},
			Lane:      observe.Lane(rapid.IntRange(0, 3).Draw(t, "lane")),
			Phase:     policy.Phase(rapid.IntRange(0, 4).Draw(t, "phase")),
			Role:      rapid.SampledFrom(roles).Draw(t, "role"),
			Birth:     rapid.Bool().Draw(t, "birth"),
			Arguments: rapid.Bool().Draw(t, "arguments"),
			Withheld:  rapid.IntRange(0, 9).Draw(t, "withheld") == 0,
		}
		for i := range q.Args {
			q.Args[i] = rapid.SampledFrom([]uint64{0, 1, 2, 3, 6, 10, 16, 17, 41, 0x5412, 1 << 40}).Draw(t, "argument")
		}
		less := amount{
			rapid.IntRange(0, len(classes)-1).Draw(t, "origin"), rapid.IntRange(0, len(carriers)-1).Draw(t, "carrier"),
			rapid.IntRange(0, 5).Draw(t, "needed"), rapid.IntRange(0, 5).Draw(t, "replicas"),
			rapid.IntRange(0, 9).Draw(t, "lower"), rapid.IntRange(0, 8).Draw(t, "lift"), rapid.IntRange(0, 3).Draw(t, "sources"),
		}
		more := raise(t, less)
		decided := func(a amount) Decision {
			e, associations := a.evidence()
			return New(p, associations).Decide(q, e)
		}
		before, after := decided(less), decided(more)
		if after.Verdict < before.Verdict {
			t.Fatalf("%+v: %s\n%+v: %s", less, strings.Join(before.Lines(), "\n"), more, strings.Join(after.Lines(), "\n"))
		}
		if before.Verdict > Refuse && (q.Withheld || classes[less.origin].vetoed() || Never(q.Call) != "") {
			t.Fatalf("a veto, and %v", before.Lines())
		}
	})
}

// raise one kind of evidence. A replica more that needed the call is more evidence; one more that did not is not.
func raise(t *rapid.T, a amount) amount {
	switch rapid.IntRange(0, 5).Draw(t, "kind") {
	case 0:
		a.origin = rapid.IntRange(a.origin, len(classes)-1).Draw(t, "more origin")
	case 1:
		a.carried = rapid.IntRange(a.carried, len(carriers)-1).Draw(t, "more carrier")
	case 2:
		n := rapid.IntRange(0, 3).Draw(t, "more replicas")
		a.needed += n
		if rapid.Bool().Draw(t, "new ones") {
			a.replicas += n
		}
	case 3:
		a.lower = rapid.IntRange(a.lower, 10).Draw(t, "more confidence")
	case 4:
		a.lift = rapid.IntRange(a.lift, 20).Draw(t, "more lift")
	case 5:
		a.sources = rapid.IntRange(a.sources, 4).Draw(t, "more sources")
	}
	return a
}

// TestRiskierIsNeverLaxer: a policy with fewer ways into the kernel open asks for more, not less, of the same case; and the
// level of a call in one policy is at most that in one that neutralises more.
func TestRiskierIsNeverLaxer(t *testing.T) {
	p := New(learned(t, "redis"), corpus())
	for n := range syscalls.Known(syscalls.X86_64).All() {
		q := Question{Call: syscalls.Call{ABI: syscalls.X86_64, Nr: n}, Lane: observe.LaneService, Phase: policy.Run, Role: redisServer}
		h := p.hear(q, everything())
		var last Verdict = Learn
		for h.risk.level = Harmless; h.risk.level <= Forbidden; h.risk.level++ {
			var votes []Vote
			for i := range judges {
				votes = append(votes, p.vote(i, h))
			}
			d := decide(votes, terms{level: h.risk.level})
			if d.Verdict > last {
				t.Errorf("%v: %v at %v, %v before", q.Call, d.Verdict, h.risk.level, last)
			}
			last = d.Verdict
		}
	}
}
