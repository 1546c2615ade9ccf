// SPDX-License-Identifier: Apache-2.0

package assoc

import (
	"cmp"
	"slices"
)

// fpTree holds transactions as paths, the most frequent items first, so that what is often together shares its path.
type fpTree struct {
	root fpNode
	head [MaxItems]*fpNode // the nodes of each item, chained
}

type fpNode struct {
	item   int
	weight uint64
	rows   uint32
	parent *fpNode
	kids   map[int]*fpNode
	next   *fpNode
}

func (t *fpTree) insert(path []int, weight uint64, rows uint32) {
	n := &t.root
	for _, item := range path {
		kid := n.kids[item]
		if kid == nil {
			kid = &fpNode{item: item, parent: n, next: t.head[item]}
			t.head[item] = kid
			if n.kids == nil {
				n.kids = map[int]*fpNode{}
			}
			n.kids[item] = kid
		}
		kid.weight, kid.rows = saturated(kid.weight, weight), kid.rows+rows
		n = kid
	}
}

// fpPath is a transaction of a conditional database.
type fpPath struct {
	items  []int
	weight uint64
	rows   uint32
}

// fpgrowth is J. Han, J. Pei and Y. Yin's, "Mining Frequent Patterns without Candidate Generation", SIGMOD 2000.
func fpgrowth(db []made, least uint64, maxLen int) []Itemset {
	var paths []fpPath
	for _, x := range collapse(db) {
		paths = append(paths, fpPath{slices.Collect(x.t.All()), x.weight, 1})
	}
	var sets []Itemset
	fpMine(paths, Bits{}, least, maxLen, &sets)
	return inOrder(sets)
}

func fpMine(paths []fpPath, suffix Bits, least uint64, more int, sets *[]Itemset) {
	if more == 0 {
		return
	}
	var weight [MaxItems]uint64
	var rows [MaxItems]uint32
	for _, p := range paths {
		for _, item := range p.items {
			weight[item], rows[item] = saturated(weight[item], p.weight), rows[item]+p.rows
		}
	}
	tree := &fpTree{}
	for _, p := range paths {
		var often []int
		for _, item := range p.items {
			if weight[item] >= least {
				often = append(often, item)
			}
		}
		slices.SortFunc(often, func(a, b int) int { return cmp.Or(cmp.Compare(weight[b], weight[a]), cmp.Compare(a, b)) })
		tree.insert(often, p.weight, p.rows)
	}
	for item, head := range tree.head {
		if head == nil {
			continue
		}
		set := suffix
		set.Add(item)
		*sets = append(*sets, Itemset{Items: set, Support: weight[item], Rows: rows[item]})
		var conditional []fpPath
		for n := head; n != nil; n = n.next {
			var items []int
			for up := n.parent; up != &tree.root; up = up.parent {
				items = append(items, up.item)
			}
			conditional = append(conditional, fpPath{items, n.weight, n.rows})
		}
		fpMine(conditional, set, least, more-1, sets)
	}
}
