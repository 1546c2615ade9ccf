// SPDX-License-Identifier: Apache-2.0

package assoc

import (
	"errors"
	"math"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// database draws transactions that are alike, so that there is something to find in them.
func database(t *rapid.T, items, most int, weights *rapid.Generator[uint64]) []made {
	kinds := rapid.SliceOfN(rapid.SliceOfN(rapid.IntRange(0, items-1), 0, 7), 1, 4).Draw(t, "kinds")
	n := rapid.IntRange(0, most).Draw(t, "transactions")
	out := make([]made, n)
	for i := range out {
		out[i].t = BitsOf(rapid.SampledFrom(kinds).Draw(t, "kind")...)
		for _, item := range rapid.SliceOfN(rapid.IntRange(0, items-1), 0, 4).Draw(t, "others") {
			if out[i].t.Has(item) {
				out[i].t.Remove(item)
			} else {
				out[i].t.Add(item)
			}
		}
		out[i].weight = weights.Draw(t, "weight")
	}
	return out
}

var weights = map[string]*rapid.Generator[uint64]{
	"unweighted": rapid.Just(uint64(1)),
	"weighted":   rapid.OneOf(rapid.Just(uint64(1)), rapid.Uint64Range(0, 9), rapid.Uint64Range(1, 1<<40)),
	"saturating": rapid.OneOf(rapid.Just(uint64(1)), rapid.Uint64Range(math.MaxUint64/3, math.MaxUint64)),
}

func drawOptions(t *rapid.T, db []made) Options {
	o := Options{
		MinSupport:    rapid.Uint64Range(1, 12).Draw(t, "support"),
		MinConfidence: rapid.SampledFrom([]float64{0, 0.3, 0.5, 0.9, 1}).Draw(t, "confidence"),
		MaxLen:        rapid.IntRange(1, 4).Draw(t, "length"),
	}
	if len(db) > 0 && rapid.Bool().Draw(t, "high") {
		o.MinSupport = max(1, rapid.SampledFrom(db).Draw(t, "like").weight)
	}
	return o
}

func filled(items int, db []made) *Miner {
	m := New(items)
	for _, x := range db {
		m.Add(x.t, x.weight)
	}
	return m
}

// same compares with the oracle everything that a Miner tells.
func same(t interface{ Fatalf(string, ...any) }, m *Miner, db []made, items int, o Options, find oracle) {
	want := find(db, o.MinSupport, o.MaxLen)
	got, err := m.Itemsets(o)
	if err != nil {
		t.Fatalf("Itemsets(%+v): %v", o, err)
	}
	if !slices.Equal(want, got) {
		t.Fatalf("Itemsets(%+v) of %v (-want +got):\n%s", o, db, cmp.Diff(want, got))
	}
	wantRules := rulesOf(db, want, o.MinConfidence)
	rules, err := m.Rules(o)
	if err != nil {
		t.Fatalf("Rules(%+v): %v", o, err)
	}
	if !slices.Equal(wantRules, rules) {
		t.Fatalf("Rules(%+v) of %v (-want +got):\n%s", o, db, cmp.Diff(wantRules, rules))
	}
	for _, miner := range []*Miner{m, filled(items, db)} { // from what was mined, and from nothing
		for then := range min(items, 20) {
			want := slices.DeleteFunc(slices.Clone(wantRules), func(r Rule) bool { return r.Then != then })
			rules, err := miner.RulesFor(then, o)
			if err != nil {
				t.Fatalf("RulesFor(%d, %+v): %v", then, o, err)
			}
			if !slices.Equal(want, rules) {
				t.Fatalf("RulesFor(%d, %+v) of %v (-want +got):\n%s", then, o, db, cmp.Diff(want, rules))
			}
		}
	}
}

func TestAgainstOracles(t *testing.T) {
	for name, weight := range weights {
		for oracleName, find := range map[string]oracle{"apriori": apriori, "fpgrowth": fpgrowth} {
			t.Run(name+"/"+oracleName, rapid.MakeCheck(func(t *rapid.T) {
				items := rapid.SampledFrom([]int{1, 12, 64, 65, 130}).Draw(t, "items")
				db := database(t, items, 70, weight)
				same(t, filled(items, db), db, items, drawOptions(t, db), find)
			}))
		}
	}
}

// What is added to a Miner that has mined gives what mining it all from nothing does.
func TestIncrement(t *testing.T) {
	for name, weight := range weights {
		t.Run(name, rapid.MakeCheck(func(t *rapid.T) {
			const items = 20
			m := New(items)
			var db []made
			o := drawOptions(t, nil)
			for range rapid.IntRange(2, 5).Draw(t, "batches") {
				batch := database(t, items, 40, weight)
				if len(db) > 0 { // some of it again
					batch = append(batch, rapid.SliceOfN(rapid.SampledFrom(db), 0, 5).Draw(t, "again")...)
				}
				db = append(db, batch...)
				for _, x := range batch {
					m.Add(x.t, x.weight)
				}
				if rapid.IntRange(0, 3).Draw(t, "other options") == 0 {
					o = drawOptions(t, db)
				}
				same(t, m, db, items, o, apriori)
			}
		}))
	}
}

// TestIncrementOfMany does so where a batch touches little of what there is, and where rows fill many words.
func TestIncrementOfMany(t *testing.T) {
	h := newHost(70, 6, 4, 10, 0.05, 2)
	m := New(70)
	o := Options{MinSupport: 100, MinConfidence: 0.4, MaxLen: 4}
	var db []made
	for _, n := range []int{2000, 100, 1, 0, 64, 2500, 10} {
		before := m.lattice
		for i, b := range h.bursts(n) {
			x := made{b, uint64(1 + i%7/6*i%50)}
			db = append(db, x)
			m.Add(x.t, x.weight)
		}
		same(t, m, db, 70, o, fpgrowth)
		if kept := m.lattice == before; kept != (n < 1000) {
			t.Errorf("after a batch of %d beside %d: what was mined is kept: %t", n, len(db), kept)
		}
	}
}

func TestEdges(t *testing.T) {
	everything := Bits{}
	for i := range everything {
		everything[i] = math.MaxUint64
	}
	tests := []struct {
		name  string
		items int
		db    []made
		o     Options
	}{
		{"nothing", 10, nil, Options{MaxLen: 3}},
		{"no items", 0, []made{{Bits{}, 3}}, Options{MaxLen: 3}},
		{"an empty transaction", 10, []made{{Bits{}, 3}}, Options{MaxLen: 3}},
		{"one item", 1, []made{{BitsOf(0), 3}, {Bits{}, 1}}, Options{MaxLen: 3}},
		{"weight 0", 4, []made{{BitsOf(0, 1), 0}}, Options{MaxLen: 3}},
		{"all equal", 8, slices.Repeat([]made{{BitsOf(0, 1, 2, 3, 4, 5, 6, 7), 2}}, 70), Options{MinSupport: 140, MaxLen: 8}},
		{"none often enough", 8, []made{{BitsOf(0, 1), 2}}, Options{MinSupport: 3, MaxLen: 3}},
		{"weights past the greatest", 8, []made{{BitsOf(0, 1), math.MaxUint64}, {BitsOf(0, 1), 1}, {BitsOf(0, 1, 2), math.MaxUint64}},
			Options{MinSupport: math.MaxUint64, MaxLen: 3}},
		{"the last items", MaxItems, []made{{BitsOf(MaxItems-1, MaxItems-2, 0), 2}, {BitsOf(MaxItems - 1), 1}}, Options{MaxLen: 3}},
		{"as long as can be", 13, []made{{BitsOf(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12), 2}}, Options{MaxLen: MaxLen}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			test.o.MinSupport = max(test.o.MinSupport, 1)
			items := test.items
			same(t, filled(items, test.db), test.db, items, test.o, apriori)
			same(t, filled(items, test.db), test.db, items, test.o, fpgrowth)
		})
	}
}

func TestItemsOutOfRange(t *testing.T) {
	m := New(65)
	m.Add(BitsOf(1, 64), 1)
	m.Add(BitsOf(1, 64, 65, 1023), 1)
	sets, err := m.Itemsets(Options{})
	want := []Itemset{{BitsOf(1), 2, 1}, {BitsOf(64), 2, 1}, {BitsOf(1, 64), 2, 1}}
	if d := cmp.Diff(want, sets); d != "" || err != nil || m.Cut() != 1 || m.Rows() != 1 || m.Total() != 2 {
		t.Errorf("Itemsets: %v; %d cut, %d rows, %d in all; (-want +got):\n%s", err, m.Cut(), m.Rows(), m.Total(), d)
	}
	for _, then := range []int{-1, 65, 1024, math.MaxInt} {
		if rules, err := m.RulesFor(then, Options{}); len(rules) != 0 || err != nil {
			t.Errorf("RulesFor(%d) = %v, %v; want none", then, rules, err)
		}
	}
	if (Bits{}).Has(-1) || (Bits{}).Has(MaxItems) {
		t.Error("a set has items that cannot be")
	}
}

// A set of 60 items has 2⁶⁰ subsets: mining them must end, and say that it did not do it.
func TestTooMany(t *testing.T) {
	m := New(60)
	m.Add(m.within, 1)
	o := Options{MaxLen: MaxLen, Limit: 60*59/2 - 1}
	if _, err := m.Itemsets(o); !errors.Is(err, ErrTooMany) {
		t.Errorf("Itemsets: %v, want ErrTooMany", err)
	}
	if _, err := m.Rules(o); !errors.Is(err, ErrTooMany) {
		t.Errorf("Rules: %v, want ErrTooMany", err)
	}
	if _, err := m.RulesFor(3, Options{MaxLen: 12, Limit: 100}); !errors.Is(err, ErrTooMany) {
		t.Errorf("RulesFor: %v, want ErrTooMany", err)
	}
	o = Options{MaxLen: 2, Limit: 60 * 59 / 2}
	sets, err := m.Itemsets(o)
	if err != nil || len(sets) != 60+60*59/2 {
		t.Errorf("Itemsets as many as there may be: %d, %v", len(sets), err)
	}
	if _, err := m.Itemsets(Options{MaxLen: 2, Limit: 60*59/2 - 1}); !errors.Is(err, ErrTooMany) {
		t.Errorf("Itemsets of what was mined: %v, want ErrTooMany", err)
	}
}

// A batch that makes too many frequent is told of, and less can be asked for then.
func TestTooManyLater(t *testing.T) {
	m := New(60)
	m.Add(BitsOf(1, 2, 3), 5)
	o := Options{MinSupport: 1, MaxLen: 3, Limit: 100}
	if _, err := m.Itemsets(o); err != nil {
		t.Fatal(err)
	}
	m.Add(m.within, 1)
	if _, err := m.Itemsets(o); !errors.Is(err, ErrTooMany) {
		t.Errorf("Itemsets: %v, want ErrTooMany", err)
	}
	o.MinSupport = 2
	if sets, err := m.Itemsets(o); err != nil || len(sets) != 7 {
		t.Errorf("Itemsets of more support: %v, %v; want 7", sets, err)
	}
}
