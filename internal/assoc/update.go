// SPDX-License-Identifier: Apache-2.0

package assoc

import (
	"math/bits"
	"slices"
)

// batch is the transactions that were added since the lattice was mined, as rows of their own.
type batch struct {
	*rows
	fresh []uint64 // bitmap of the rows that the miner did not have before
}

func newBatch(words int) *batch { return &batch{rows: newRows(words)} }

// add a transaction; added is whether it was new to the miner.
func (b *batch) add(t []uint64, weight uint64, added bool) {
	id, _ := b.rows.add(t, weight)
	for id/64 >= len(b.fresh) {
		b.fresh = append(b.fresh, 0)
	}
	if added {
		b.fresh[id/64] |= 1 << (id % 64)
	}
}

// update brings a lattice up to date. Supports only grow, so what was frequent stays so. A set that no row of the batch has
// keeps its support, and so do all that contain it: the walk goes only where the batch does. What it meets there was either
// counted before, and what the batch has is added, or it was not, because some subset was not frequent: it is counted in all
// rows. This is FUP (D. W. Cheung et al., ICDE 1996) depth first, with the border of the frequent sets kept.
type update struct {
	*lattice
	batch *batch
	cols  [][]uint64 // of the batch, by item
	light *weigher   // of the batch

	all     *rows
	allCols [][]uint64 // by item, as far as they were needed
	heavy   *weigher   // of all rows; nil until it is needed
	current []bool     // by item: allCols has all rows
}

func (l *lattice) update(b *batch, all *rows, allCols [][]uint64) error {
	u := &update{
		lattice: l, batch: b, cols: make([][]uint64, len(l.items)), light: b.weigher(),
		all: all, allCols: allCols, current: make([]bool, len(l.items)),
	}
	b.columns(u.cols, l.items)
	if l.maxLen < 2 {
		return nil
	}
	ranks := l.often(l.root.nodes)
	if err := u.kids(l.root, nil, nil, ranks, 1); err != nil {
		return err
	}
	return nil
}

// kids of a class's frequent nodes. prefix is the ranks that the class's sets share, rows the batch's rows that have them
// (nil: all), depth how many items its sets have.
func (u *update) kids(c *class, prefix []uint16, rows []uint64, often []uint16, depth int) error {
	if depth == u.maxLen || len(often) < 2 {
		return nil
	}
	for len(c.kids) < len(c.nodes) {
		c.kids = append(c.kids, nil)
	}
	for at, rank := range often[:len(often)-1] {
		below := u.cols[u.items[rank]]
		if rows != nil {
			below = and(make([]uint64, len(rows)), rows, below)
		}
		if !slices.ContainsFunc(below, func(w uint64) bool { return w != 0 }) {
			continue
		}
		i, _ := c.find(rank)
		if c.kids[i] == nil {
			c.kids[i] = &class{}
		}
		path := append(prefix[:len(prefix):len(prefix)], rank)
		if err := u.class(c.kids[i], path, below, often[at+1:], depth+1); err != nil {
			return err
		}
	}
	return nil
}

// class has the nodes of the further items counted, those that it has and those that it has not yet.
func (u *update) class(c *class, prefix []uint16, rows []uint64, further []uint16, depth int) error {
	nodes := make([]node, 0, len(further))
	kids := make([]*class, 0, len(further))
	var often []uint16
	var allRows []uint64
	old := 0
	for _, rank := range further {
		weight, n, fresh := u.met(rows, u.cols[u.items[rank]])
		before := uint64(0)
		switch {
		case old < len(c.nodes) && c.nodes[old].rank == rank:
			was := c.nodes[old]
			before = was.weight
			nodes = append(nodes, node{weight: plus(was.weight, weight), rows: was.rows + uint32(fresh), rank: rank})
			kids = append(kids, c.kid(old))
			old++
		case n > 0:
			if allRows == nil {
				allRows = u.rowsOf(prefix)
			}
			weight, n := u.weigh(allRows, u.column(rank))
			nodes = append(nodes, node{weight: weight, rows: uint32(n), rank: rank})
			kids = append(kids, nil)
		default:
			continue
		}
		if nodes[len(nodes)-1].weight >= u.min {
			often = append(often, rank)
			if before < u.min {
				u.frequent++
			}
		}
	}
	c.nodes, c.kids = nodes, kids
	if u.frequent > u.limit {
		return ErrTooMany
	}
	return u.kids(c, prefix, rows, often, depth)
}

// met is what two columns of the batch share: its weight, its rows, and how many of them are new to the miner.
func (u *update) met(a, b []uint64) (weight uint64, n, fresh int) {
	weight, n = u.light.both(a, b)
	if n == 0 {
		return 0, 0, 0
	}
	for i, w := range a {
		fresh += bits.OnesCount64(w & b[i] & u.batch.fresh[i])
	}
	return weight, n, fresh
}

// column of all rows.
func (u *update) column(rank uint16) []uint64 {
	item := u.items[rank]
	if !u.current[item] {
		u.all.columns(u.allCols, []uint16{item})
		u.current[item] = true
	}
	return u.allCols[item]
}

// rowsOf all that have the items of the given ranks.
func (u *update) rowsOf(ranks []uint16) []uint64 {
	out := slices.Clone(u.column(ranks[0]))
	for _, rank := range ranks[1:] {
		and(out, out, u.column(rank))
	}
	return out
}

func (u *update) weigh(a, b []uint64) (weight uint64, n int) {
	if u.heavy == nil {
		u.heavy = u.all.weigher()
	}
	return u.heavy.both(a, b)
}
