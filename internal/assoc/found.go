// SPDX-License-Identifier: Apache-2.0

package assoc

import (
	"cmp"
	"slices"
)

// key is a set of up to MaxLen items, or a rule of as many, in 128 bits that sort like it; ten bits are an item, and four
// how many there are. A million Itemsets would take several times as long to sort.
type key struct{ hi, lo uint64 }

func (k key) compare(other key) int {
	if c := cmp.Compare(k.hi, other.hi); c != 0 {
		return c
	}
	return cmp.Compare(k.lo, other.lo)
}

// setKey sorts by the number of items, then by the items, which it sorts.
func setKey(items []uint16) key {
	slices.Sort(items)
	k := key{hi: uint64(len(items)) << 60}
	for i, item := range items {
		k.put(i, item)
	}
	return k
}

// ruleKey sorts by then, the number of other items, these.
func ruleKey(then uint16, items []uint16) key {
	slices.Sort(items)
	k := key{hi: uint64(then)<<54 | uint64(len(items))<<50}
	for i, item := range items {
		k.put(i+1, item)
	}
	return k
}

// put an item at one of the places 0 to 11. A rule's Then and length have the uppermost 14 bits: its places begin at 1, and
// the five up to the sixth have the 50 bits below.
func (k *key) put(place int, item uint16) {
	if place < 6 {
		k.hi |= uint64(item) << (10 * (5 - place))
		return
	}
	k.lo |= uint64(item) << (10 * (11 - place))
}

func (k key) get(place int) int {
	if place < 6 {
		return int(k.hi >> (10 * (5 - place)) & 1023)
	}
	return int(k.lo >> (10 * (11 - place)) & 1023)
}

type foundSet struct {
	key
	node
}

type foundRule struct {
	key
	all, left node
}

func (f foundSet) itemset() Itemset {
	s := Itemset{Support: f.weight, Rows: f.rows}
	for place := range int(f.hi >> 60) {
		s.Items.Add(f.get(place))
	}
	return s
}

func (m *Miner) rule(f foundRule) Rule {
	then := int(f.hi >> 54)
	r := Rule{
		Then: then, ThenSupport: m.single[then].weight, Total: m.total,
		Support: f.all.weight, Rows: f.all.rows, IfSupport: f.left.weight, IfRows: f.left.rows,
	}
	for place := range int(f.hi >> 50 & 15) {
		r.If.Add(f.get(place + 1))
	}
	return r
}

// Itemsets that are frequent, the shorter ones first, then in the order of their items.
func (m *Miner) Itemsets(o Options) ([]Itemset, error) {
	o = o.settled()
	l, err := m.mined(o)
	if err != nil {
		return nil, err
	}
	found := make([]foundSet, 0, len(m.single)+l.frequent)
	items := make([]uint16, 0, MaxLen)
	err = l.each(o, func(ranks []uint16, n node) {
		items = l.itemsOf(items[:0], ranks)
		found = append(found, foundSet{setKey(items), n})
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(found, func(a, b foundSet) int { return a.compare(b.key) })
	out := make([]Itemset, len(found))
	for i, f := range found {
		out[i] = f.itemset()
	}
	return out, nil
}

// Rules that hold, in the order of Then, the length of If, the items of If.
func (m *Miner) Rules(o Options) ([]Rule, error) {
	o = o.settled()
	l, err := m.mined(o)
	if err != nil {
		return nil, err
	}
	return m.rules(l, o, func(uint16) bool { return true })
}

// rules for what is wanted as Then. They are counted first: a slice that grew would be in memory more than once.
func (m *Miner) rules(l *lattice, o Options, wanted func(then uint16) bool) ([]Rule, error) {
	n := 0
	if err := l.eachRule(o, wanted, func([]uint16, uint16, node, node) { n++ }); err != nil {
		return nil, err
	}
	found := make([]foundRule, 0, n)
	items := make([]uint16, 0, MaxLen)
	err := l.eachRule(o, wanted, func(ranks []uint16, then uint16, all, left node) {
		items = l.itemsOf(items[:0], ranks)
		found = append(found, foundRule{ruleKey(then, items), all, left})
	})
	return m.told(found), err
}

// eachRule that holds, in no order that means anything.
func (l *lattice) eachRule(o Options, wanted func(then uint16) bool, do func(ranks []uint16, then uint16, all, left node)) error {
	without := make([]uint16, 0, MaxLen)
	return l.each(o, func(ranks []uint16, all node) {
		for i, rank := range ranks {
			if len(ranks) == 1 || !wanted(l.items[rank]) {
				continue
			}
			without = append(append(without[:0], ranks[:i]...), ranks[i+1:]...)
			left := l.lookup(without)
			if share(all.weight, left.weight) >= o.MinConfidence {
				do(without, l.items[rank], all, left)
			}
		}
	})
}

// told are the rules in their order.
func (m *Miner) told(found []foundRule) []Rule {
	slices.SortFunc(found, func(a, b foundRule) int { return a.compare(b.key) })
	out := make([]Rule, len(found))
	for i, f := range found {
		out[i] = m.rule(f)
	}
	return out
}

// each frequent itemset, in no order that means anything.
func (l *lattice) each(o Options, do func(ranks []uint16, n node)) error {
	ranks := make([]uint16, 0, MaxLen)
	found := 0
	var down func(c *class)
	down = func(c *class) {
		for i, n := range c.nodes {
			if n.weight < o.MinSupport {
				continue
			}
			if len(ranks) > 0 {
				if found++; found > o.Limit {
					return
				}
			}
			ranks = append(ranks, n.rank)
			do(ranks, n)
			if kid := c.kid(i); kid != nil && len(ranks) < o.MaxLen {
				down(kid)
			}
			ranks = ranks[:len(ranks)-1]
		}
	}
	down(l.root)
	if found > o.Limit {
		return ErrTooMany
	}
	return nil
}

// lookup a set that is frequent.
func (l *lattice) lookup(ranks []uint16) node {
	c := l.root
	for _, rank := range ranks[:len(ranks)-1] {
		i, _ := c.find(rank)
		c = c.kids[i]
	}
	i, _ := c.find(ranks[len(ranks)-1])
	return c.nodes[i]
}

func (l *lattice) itemsOf(items []uint16, ranks []uint16) []uint16 {
	for _, rank := range ranks {
		items = append(items, l.items[rank])
	}
	return items
}
