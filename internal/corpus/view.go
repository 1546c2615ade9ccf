// SPDX-License-Identifier: Apache-2.0

package corpus

import (
	"errors"
	"math"
	"math/bits"
	"sync"

	"github.com/whittle-sec/whittle/internal/assoc"
)

// A view is one way to cut what was recorded into transactions. There are three, each mined by itself, because each answers
// another question and none of them may water down another's shares:
//
//   - bursts: who does this within one request, does that within it;
//   - stages: which program does this while it boots, runs, reloads or stops, does that then;
//   - lives: which program does this at any time of its life, does that at some time. Here is what training missed.
type view struct {
	mu    sync.Mutex
	miner *assoc.Miner // of all items
	apart *assoc.Miner // without those that nearly every service has: in an If with others they say nothing

	total   uint64 // weight
	rows    int
	sets    []assoc.Bits
	owner   []int      // of each set, the index of its service
	columns [][]uint64 // for each item, the sets that have it, a bit each
}

type transaction struct {
	set    assoc.Bits
	weight float64
}

// perService is the weight of all transactions of one service together: a benchmark's million bursts must not drown what
// another service did once.
const perService = 1 << 20

func newView(services []Service, it items, transactions func(Service, items) []transaction) *view {
	v := &view{miner: assoc.New(len(it.names)), apart: assoc.New(len(it.names))}
	usual := usual(services, it)
	for i, s := range services {
		all := transactions(s, it)
		total := 0.0
		for _, t := range all {
			total += t.weight
		}
		for _, t := range all {
			weight := uint64(max(1, t.weight/total*perService))
			v.miner.Add(t.set, weight)
			apart := t.set
			for item := range usual.All() {
				apart.Remove(item)
			}
			v.apart.Add(apart, weight)
			v.sets, v.owner = append(v.sets, t.set), append(v.owner, i)
		}
	}
	v.total, v.rows = v.miner.Total(), len(v.sets)
	words := (len(v.sets) + 63) / 64
	v.columns = make([][]uint64, len(it.names))
	for item := range v.columns {
		v.columns[item] = make([]uint64, words)
	}
	for row := range v.sets {
		for item := range v.sets[row].All() {
			v.columns[item][row/64] |= 1 << (row % 64)
		}
	}
	return v
}

// usual are the calls of at least two services in three.
func usual(services []Service, it items) (b assoc.Bits) {
	count := make([]int, len(it.names))
	for _, s := range services {
		var all assoc.Bits
		for _, t := range ofLives(s, it) {
			for item := range t.set.All() {
				all.Add(item)
			}
		}
		for item := range all.All() {
			count[item]++
		}
	}
	for item, n := range count {
		if 3*n >= 2*len(services) {
			b.Add(item)
		}
	}
	return b
}

func (it items) bits(calls []string) (b assoc.Bits) {
	all := allClasses()
	for _, name := range calls {
		if item, ok := it.index[all.class(name)]; ok {
			b.Add(item)
		}
	}
	return b
}

// ofBursts weighs a burst by the logarithm of its count.
func ofBursts(s Service, it items) (out []transaction) {
	for _, b := range s.Bursts {
		out = append(out, transaction{it.bits(b.Calls), math.Log2(1 + float64(b.Count))})
	}
	return out
}

func ofStages(s Service, it items) (out []transaction) {
	for _, r := range s.Roles {
		out = append(out, transaction{it.bits(r.Calls), 1})
	}
	return out
}

func ofLives(s Service, it items) (out []transaction) {
	type program struct {
		exe        string
		generation uint8
	}
	index := map[program]int{}
	for _, r := range s.Roles {
		p := program{r.Exe, r.Generation}
		if _, ok := index[p]; !ok {
			index[p] = len(out)
			out = append(out, transaction{weight: 1})
		}
		t := &out[index[p]]
		for item := range it.bits(r.Calls).All() {
			t.set.Add(item)
		}
	}
	return out
}

// minSupport of a rule, in shares of one service's weight: a role that is one of eight in two services.
const minSupport = perService / 8

// rules for one consequent that hold in enough services. What one service does many times is no proof: the lower bound is for
// as many observations as there are services that do all of If. Usual calls are looked at alone only: together with
// others they say what those say, and there would be millions of sets.
func (v *view) rules(then int, number int8) (out []rule, err error) {
	v.mu.Lock()
	found, err := v.miner.RulesFor(then, assoc.Options{MinSupport: minSupport, MinConfidence: minLower, MaxLen: 2})
	more, err2 := v.apart.RulesFor(then, assoc.Options{MinSupport: minSupport, MinConfidence: minLower, MaxLen: maxIf + 1})
	v.mu.Unlock()
	if err := errors.Join(err, err2); err != nil {
		return nil, err
	}
	found = append(found, more...)
	for _, f := range found {
		one := rule{ifs: [maxIf]int16{-1, -1, -1}, view: number, support: f.Support, confidence: f.Confidence(), lift: f.Lift()}
		n := 0
		for item := range f.If.All() {
			one.ifs[n] = int16(item)
			n++
		}
		have := v.services(one.ifs, -1)
		if one.sources = v.services(one.ifs, then); bits.OnesCount64(one.sources) < minServices {
			continue
		}
		if one.lower = f.LowerOf(float64(bits.OnesCount64(have))); one.lower >= minLower {
			out = append(out, one)
		}
	}
	return out, nil
}

// services that have a set with all of the items, a bit each.
func (v *view) services(ifs [maxIf]int16, then int) (mask uint64) {
	for word := range (len(v.sets) + 63) / 64 {
		rows := ^uint64(0)
		for _, item := range ifs {
			if item >= 0 {
				rows &= v.columns[item][word]
			}
		}
		if then >= 0 {
			rows &= v.columns[then][word]
		}
		for ; rows != 0; rows &= rows - 1 {
			if row := word*64 + bits.TrailingZeros64(rows); row < len(v.owner) {
				mask |= 1 << v.owner[row]
			}
		}
	}
	return mask
}
