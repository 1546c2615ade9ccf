// SPDX-License-Identifier: Apache-2.0

package assoc

import (
	"cmp"
	"math"
	"slices"
)

// Two miners that share nothing with the real one but Bits and the order of what they return.

// made is a transaction and how many times it was made.
type made struct {
	t      Bits
	weight uint64
}

// oracle finds the frequent itemsets of at most maxLen items.
type oracle func(db []made, least uint64, maxLen int) []Itemset

// collapse equal transactions.
func collapse(db []made) []made {
	at := map[Bits]int{}
	var out []made
	for _, x := range db {
		if x.weight == 0 {
			continue
		}
		i, ok := at[x.t]
		if !ok {
			i = len(out)
			at[x.t] = i
			out = append(out, made{t: x.t})
		}
		out[i].weight = saturated(out[i].weight, x.weight)
	}
	return out
}

func saturated(a, b uint64) uint64 {
	if a > math.MaxUint64-b {
		return math.MaxUint64
	}
	return a + b
}

// trie counts itemsets of one length, its items in ascending order from the root down.
type trie struct {
	kids   map[int]*trie
	weight uint64
	rows   uint32
}

func (n *trie) insert(items []int) {
	for _, item := range items {
		if n.kids == nil {
			n.kids = map[int]*trie{}
		}
		if n.kids[item] == nil {
			n.kids[item] = &trie{}
		}
		n = n.kids[item]
	}
}

func (n *trie) count(row []int, weight uint64) {
	if n.kids == nil {
		n.weight = saturated(n.weight, weight)
		n.rows++
		return
	}
	for i, item := range row {
		if kid := n.kids[item]; kid != nil {
			kid.count(row[i+1:], weight)
		}
	}
}

func (n *trie) frequent(path []int, least uint64, out *[][]int, sets *[]Itemset) {
	if n.kids == nil {
		if len(path) > 0 && n.weight >= least {
			*out = append(*out, slices.Clone(path))
			*sets = append(*sets, Itemset{Items: BitsOf(path...), Support: n.weight, Rows: n.rows})
		}
		return
	}
	for item, kid := range n.kids {
		kid.frequent(append(path, item), least, out, sets)
	}
}

// apriori is R. Agrawal and R. Srikant's, "Fast Algorithms for Mining Association Rules", VLDB 1994: candidates of k items
// are joined from the frequent sets of k−1, and every transaction is looked at for each k.
func apriori(db []made, least uint64, maxLen int) []Itemset {
	db = collapse(db)
	rows := make([][]int, len(db))
	candidates := &trie{}
	for i, x := range db {
		rows[i] = slices.Collect(x.t.All())
		for _, item := range rows[i] {
			candidates.insert([]int{item})
		}
	}
	var sets []Itemset
	for range maxLen {
		if candidates.kids == nil {
			break
		}
		for i, row := range rows {
			candidates.count(row, db[i].weight)
		}
		var last [][]int
		candidates.frequent(nil, least, &last, &sets)
		candidates = join(last)
	}
	return inOrder(sets)
}

// join frequent sets that differ in their last item, where all subsets are frequent.
func join(last [][]int) *trie {
	slices.SortFunc(last, slices.Compare)
	frequent := map[Bits]bool{}
	for _, set := range last {
		frequent[BitsOf(set...)] = true
	}
	out := &trie{}
	for i, a := range last {
		k := len(a) - 1
		for _, b := range last[i+1:] {
			if !slices.Equal(a[:k], b[:k]) {
				break
			}
			set := append(slices.Clone(a), b[k])
			all := BitsOf(set...)
			if !slices.ContainsFunc(set, func(item int) bool {
				sub := all
				sub.Remove(item)
				return !frequent[sub]
			}) {
				out.insert(set)
			}
		}
	}
	return out
}

// inOrder that Miner.Itemsets promises.
func inOrder(sets []Itemset) []Itemset {
	slices.SortFunc(sets, func(a, b Itemset) int {
		return cmp.Or(cmp.Compare(a.Items.Count(), b.Items.Count()), compareItems(a.Items, b.Items))
	})
	return sets
}

func compareItems(a, b Bits) int {
	return slices.Compare(slices.Collect(a.All()), slices.Collect(b.All()))
}

// rulesOf frequent itemsets, in the order that Miner.Rules promises.
func rulesOf(db []made, sets []Itemset, confidence float64) []Rule {
	total := uint64(0)
	for _, x := range db {
		total = saturated(total, x.weight)
	}
	found := map[Bits]Itemset{}
	for _, s := range sets {
		found[s.Items] = s
	}
	var out []Rule
	for _, s := range sets {
		for then := range s.Items.All() {
			left := s.Items
			left.Remove(then)
			x := found[left]
			if left == (Bits{}) || float64(s.Support)/float64(x.Support) < confidence {
				continue
			}
			out = append(out, Rule{
				If: left, Then: then, Support: s.Support, Rows: s.Rows, IfSupport: x.Support, IfRows: x.Rows,
				ThenSupport: found[BitsOf(then)].Support, Total: total,
			})
		}
	}
	slices.SortFunc(out, func(a, b Rule) int {
		return cmp.Or(cmp.Compare(a.Then, b.Then), cmp.Compare(a.If.Count(), b.If.Count()), compareItems(a.If, b.If))
	})
	return out
}
