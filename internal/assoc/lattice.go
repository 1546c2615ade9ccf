// SPDX-License-Identifier: Apache-2.0

package assoc

import (
	"cmp"
	"slices"
)

// lattice is what was mined: for every frequent itemset, in how many rows each further item is, too. The counts of those
// that are not frequent are kept as well; they are what makes adding a batch cheap (update.go).
type lattice struct {
	order
	min      uint64
	maxLen   int
	limit    int
	frequent int // itemsets, without those of one item
	root     *class
}

// class is the itemsets that share all items but their last, in the order of the last one's rank.
type class struct {
	nodes []node
	kids  []*class // by node, of the frequent ones; nil is one without nodes. Short or nil where there are none behind
}

type node struct {
	weight uint64
	rows   uint32
	rank   uint16
}

func (c *class) kid(i int) *class {
	if i < len(c.kids) {
		return c.kids[i]
	}
	return nil
}

func (c *class) find(rank uint16) (int, bool) {
	return slices.BinarySearchFunc(c.nodes, rank, func(n node, rank uint16) int { return cmp.Compare(n.rank, rank) })
}

// rankItems, the rare ones first: the fewer rows have the first item of a set, the fewer there are to look at for the rest.
func rankItems(single []node) order {
	o := order{items: make([]uint16, len(single)), rank: make([]uint16, len(single))}
	for item := range single {
		o.items[item] = uint16(item)
	}
	slices.SortStableFunc(o.items, func(a, b uint16) int { return cmp.Compare(single[a].rows, single[b].rows) })
	for rank, item := range o.items {
		o.rank[item] = uint16(rank)
	}
	return o
}

// newLattice has the itemsets of one item. The nodes of single are by item.
func newLattice(single []node, o Options) *lattice {
	l := &lattice{order: rankItems(single), min: o.MinSupport, maxLen: o.MaxLen, limit: o.Limit}
	l.root = &class{nodes: make([]node, len(single))}
	l.count(single)
	return l
}

// count the itemsets of one item, which the miner does whenever it is given a transaction.
func (l *lattice) count(single []node) {
	for rank, item := range l.items {
		l.root.nodes[rank] = node{weight: single[item].weight, rows: single[item].rows, rank: uint16(rank)}
	}
}

// mine all rows from nothing, by Eclat (M. J. Zaki, "Scalable Algorithms for Association Mining", IEEE TKDE 12(3), 2000):
// depth first, each itemset with the bitmap of the rows that have it. The bitmaps are of the rows only that have the set's
// first item.
func (l *lattice) mine(r *rows, cols [][]uint64) error {
	ranks := l.often(l.root.nodes)
	if l.maxLen < 2 || len(ranks) < 2 {
		return nil
	}
	items := make([]uint16, len(ranks))
	for i, rank := range ranks {
		items[i] = l.items[rank]
	}
	r.columns(cols, items)
	some := make([][]uint64, len(items))
	for i, item := range items {
		some[i] = cols[item]
	}
	// The ranked rows begin with the first frequent item; ranks here are less by that.
	byRank := rankRows(r, some)
	walk := &walk{lattice: l, base: ranks, bitmaps: make([][]uint64, l.maxLen)}
	whole := &view{weigher: *r.weigher(), cols: some}
	parts := byRank.reserve()
	l.root.kids = make([]*class, len(l.root.nodes))
	apart := 0 // ranks before this one are: the rarer, the more
	for apart < len(ranks)-1 && l.apart(int(l.root.nodes[ranks[apart]].rows), r.n, len(ranks)-1-apart) {
		apart++
	}
	for i := range len(ranks) - 1 {
		walk.view = whole
		if i < apart {
			if i%together == 0 {
				parts.project(byRank, i, apart)
			}
			walk.view = &parts[i%together].view
		}
		rows := walk.cols[i]
		l.root.kids[ranks[i]] = walk.class(rows, walk.after(i), 2)
		if l.frequent > l.limit {
			return ErrTooMany
		}
	}
	return nil
}

// apart reports whether a projection of n of all rows saves more than it costs, where further items can follow: the rarer the
// item, and the more sets there are to count. A row in a projection costs about what 12 words do that are counted.
func (l *lattice) apart(n, all, further int) bool {
	sets, choose := 0.0, 1.0
	for k := range min(l.maxLen-1, further) {
		choose = choose * float64(further-k) / float64(k+1)
		sets += choose
	}
	return sets*float64(all-n)/64 > 12*float64(n)
}

// often are the ranks of the frequent nodes.
func (l *lattice) often(nodes []node) []uint16 {
	var out []uint16
	for _, n := range nodes {
		if n.weight >= l.min {
			out = append(out, n.rank)
		}
	}
	return out
}

// walk down from one item.
type walk struct {
	*lattice
	*view
	base    []uint16   // frequent ranks of the root, which the view numbers from 0
	bitmaps [][]uint64 // by depth
	seq     []uint16
	prefix  weigher // of the class that is being counted
}

// after i, the view's ranks.
func (w *walk) after(i int) []uint16 {
	w.seq = w.seq[:0]
	for j := i + 1; j < len(w.base); j++ {
		w.seq = append(w.seq, uint16(j))
	}
	return w.seq
}

// class of the set whose rows are given, with each of some further items; depth is how many items the sets of the class
// have.
func (w *walk) class(rows []uint64, further []uint16, depth int) *class {
	c := &class{nodes: make([]node, len(further))}
	often := make([]uint16, 0, len(further))
	w.only(rows, &w.prefix)
	for i := 0; i < len(further); i += 4 {
		some := further[i:min(i+4, len(further))]
		for k, n := range w.four(rows, some) {
			if k == len(some) {
				break
			}
			col := w.cols[some[k]]
			weight := w.prefix.weigh(n, col, col)
			c.nodes[i+k] = node{weight: weight, rows: uint32(n), rank: w.base[some[k]]}
			if weight >= w.min {
				often = append(often, some[k])
			}
		}
	}
	if w.frequent += len(often); w.frequent > w.limit || depth == w.maxLen || len(often) < 2 {
		return c
	}
	c.kids = make([]*class, len(c.nodes))
	i := 0
	for at, rank := range often[:len(often)-1] {
		for further[i] != rank {
			i++
		}
		below := and(w.bitmap(depth, len(rows)), rows, w.cols[rank])
		c.kids[i] = w.class(below, often[at+1:], depth+1)
		if w.frequent > w.limit {
			break
		}
	}
	return c
}

func (w *walk) bitmap(depth, words int) []uint64 {
	if len(w.bitmaps[depth-1]) < words {
		w.bitmaps[depth-1] = make([]uint64, words)
	}
	return w.bitmaps[depth-1][:words]
}
