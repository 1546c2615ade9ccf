// SPDX-License-Identifier: Apache-2.0

package assoc

import (
	"math/bits"
	"slices"
)

// RulesFor one Then: what Rules has for it. If nothing was mined yet that answers to the options, only the sets that are
// frequent together with Then are looked at, and nothing is kept: mine with Rules first to ask for many.
func (m *Miner) RulesFor(then int, o Options) ([]Rule, error) {
	o = o.settled()
	if then < 0 || then >= len(m.single) {
		return nil, nil
	}
	if m.suits(o) {
		l, err := m.mined(o)
		if err != nil {
			return nil, err
		}
		return m.rules(l, o, func(item uint16) bool { return int(item) == then })
	}
	m.count()
	if m.single[then].weight < o.MinSupport || o.MaxLen < 2 {
		return []Rule{}, nil
	}
	h, err := m.hunt(then, o)
	if err != nil {
		return nil, err
	}
	return m.told(h.found), nil
}

// hunt for the rules with one Then. It walks as lattice.mine does, but with two bitmaps for each set, of the rows that have
// it and of those that have Then as well: the second says where to go on, the first what the confidence is.
type hunt struct {
	Options
	*projection
	then    uint16
	items   []uint16 // by rank of the projection; the last is Then
	bitmaps [][2][]uint64
	path    []uint16
	left    []uint16
	seen    int
	found   []foundRule
}

// hunt from nothing.
func (m *Miner) hunt(then int, o Options) (*hunt, error) {
	h := &hunt{Options: o, then: uint16(then), items: m.companions(then, o.MinSupport), bitmaps: make([][2][]uint64, o.MaxLen)}
	m.all.columns(m.cols, h.items)
	some := make([][]uint64, len(h.items))
	for i, item := range h.items {
		some[i] = m.cols[item]
	}
	byRank := rankRows(m.all, some)
	parts := byRank.reserve()
	last := len(h.items) - 1
	further := make([]uint16, last)
	for i := range further {
		further[i] = uint16(i)
	}
	for i := range last {
		if i%together == 0 {
			parts.project(byRank, i, last)
		}
		h.projection = &parts[i%together]
		h.path = append(h.path[:0], h.items[i])
		with := h.cols[last]
		weight, n := h.both(with, with)
		h.tell(node{weight: weight, rows: uint32(n)}, m.single[h.items[i]])
		if o.MaxLen > 2 {
			h.walk(nil, with, further[i+1:], 3)
		}
		if h.seen > o.Limit {
			return nil, ErrTooMany
		}
	}
	return h, nil
}

// companions are the items that are often found with another, the rare ones first, and that one as the last.
func (m *Miner) companions(then int, least uint64) []uint16 {
	m.all.columns(m.cols, []uint16{uint16(then)})
	col := m.cols[then]
	with := make([]node, len(m.single))
	for at, w := range col {
		for ; w != 0; w &= w - 1 {
			id := at*64 + bits.TrailingZeros64(w)
			count(with, m.all.row(id), m.all.weight(id), true)
		}
	}
	o := rankItems(m.single)
	out := slices.DeleteFunc(o.items, func(item uint16) bool { return int(item) == then || with[item].weight < least })
	return append(out, uint16(then))
}

// walk on from a set: rows are those that have it (nil: all of the projection), with those that have Then, too; the sets
// with one item more have depth items, Then among them.
func (h *hunt) walk(rows, with []uint64, further []uint16, depth int) {
	var often []uint16
	for _, rank := range further {
		col := h.cols[rank]
		weight, n := h.both(with, col)
		if weight < h.MinSupport {
			continue
		}
		often = append(often, rank)
		if rows != nil {
			col = and(h.bitmap(0, depth, len(rows)), rows, col)
		}
		leftWeight, left := h.both(col, col)
		h.path = append(h.path, h.items[rank])
		h.tell(node{weight: weight, rows: uint32(n)}, node{weight: leftWeight, rows: uint32(left)})
		h.path = h.path[:len(h.path)-1]
		if h.seen > h.Limit {
			return
		}
	}
	if depth == h.MaxLen {
		return
	}
	for at, rank := range often {
		below := h.cols[rank]
		belowWith := and(h.bitmap(1, depth, len(with)), with, below)
		if rows != nil {
			below = and(h.bitmap(0, depth, len(rows)), rows, below)
		}
		h.path = append(h.path, h.items[rank])
		h.walk(below, belowWith, often[at+1:], depth+1)
		h.path = h.path[:len(h.path)-1]
		if h.seen > h.Limit {
			return
		}
	}
}

// tell of a frequent set, which is the path with Then.
func (h *hunt) tell(all, left node) {
	h.seen++
	if share(all.weight, left.weight) < h.MinConfidence {
		return
	}
	h.left = append(h.left[:0], h.path...)
	h.found = append(h.found, foundRule{ruleKey(h.then, h.left), all, left})
}

func (h *hunt) bitmap(which, depth, words int) []uint64 {
	b := &h.bitmaps[depth-1][which]
	if len(*b) < words {
		*b = make([]uint64, words)
	}
	return (*b)[:words]
}
