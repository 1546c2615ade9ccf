// SPDX-License-Identifier: Apache-2.0

// Package assoc mines association rules over weighted bitset transactions. It knows nothing of what the items are.
package assoc

import "errors"

// Bounds and defaults of Options.
const (
	DefaultMaxLen = 4
	MaxLen        = 12
	DefaultLimit  = 1 << 21
)

// ErrTooMany is returned when more than Options.Limit itemsets are frequent. A higher MinSupport or a lower MaxLen helps.
var ErrTooMany = errors.New("too many frequent itemsets")

// Options of mining.
type Options struct {
	MinSupport    uint64  // weight of the transactions that have all the items; 0 is 1
	MinConfidence float64 // of a rule
	MaxLen        int     // items of an itemset, and of a rule's If and Then together; 0 is DefaultMaxLen
	Limit         int     // frequent itemsets of two and more items that are borne; 0 is DefaultLimit
}

func (o Options) settled() Options {
	o.MinSupport = max(o.MinSupport, 1)
	if o.MaxLen <= 0 {
		o.MaxLen = DefaultMaxLen
	}
	o.MaxLen = min(o.MaxLen, MaxLen)
	if o.Limit <= 0 {
		o.Limit = DefaultLimit
	}
	return o
}

// Miner of transactions. It keeps what it mined: when there are more transactions, only what these can change is looked at
// again, and the result is what mining from nothing gives. It is not for several goroutines at once.
type Miner struct {
	all    *rows
	total  uint64
	cut    uint64
	within Bits // the items that there are
	seen   Bits // those that transactions had

	single  []node // what each item weighs alone; the rank is not used
	counted bool   // single knows all transactions

	lattice *lattice   // nil until something was mined
	batch   *batch     // what the lattice does not know
	cols    [][]uint64 // by item; those that were needed, as long as there were rows then
}

// New Miner for the items below a number. It panics if that is negative or more than MaxItems.
func New(items int) *Miner {
	m := &Miner{single: make([]node, items), cols: make([][]uint64, items), all: newRows((items + 63) / 64)}
	for item := range items {
		m.within.Add(item)
	}
	return m
}

// Add a transaction that was made weight times. Items that the Miner does not have are cut off and counted in Cut. Weights
// saturate.
func (m *Miner) Add(t Bits, weight uint64) {
	if weight == 0 {
		return
	}
	if !t.Within(&m.within) {
		m.cut++
		for i := range t {
			t[i] &= m.within[i]
		}
	}
	words := t[:m.all.words]
	_, added := m.all.add(words, weight)
	m.total = plus(m.total, weight)
	for i, w := range words {
		m.seen[i] |= w
	}
	if m.counted {
		count(m.single, words, weight, added)
	}
	if m.lattice == nil {
		return
	}
	// A batch that is not small beside the rest is not cheaper than mining from nothing.
	if m.batch.n > 1024 && m.batch.n > m.all.n/8 {
		m.forget()
		m.counted = false
		return
	}
	m.batch.add(words, weight, added)
}

// Total weight of all transactions.
func (m *Miner) Total() uint64 { return m.total }

// Rows is how many different transactions there are.
func (m *Miner) Rows() int { return m.all.n }

// Cut is how many transactions had items that the Miner has not.
func (m *Miner) Cut() uint64 { return m.cut }

// mined is a lattice that has all transactions and answers to the options.
func (m *Miner) mined(o Options) (*lattice, error) {
	if l := m.lattice; l != nil && l.min <= o.MinSupport && l.maxLen >= o.MaxLen {
		if m.batch.n == 0 {
			return l, nil
		}
		batch := m.batch
		m.batch = newBatch(m.all.words)
		l.count(m.single)
		if l.update(batch, m.all, m.cols) == nil {
			return l, nil
		}
		// There are too many for the options then, perhaps not for these.
	}
	m.forget()
	m.count()
	l := newLattice(m.single, o)
	if err := l.mine(m.all, m.cols); err != nil {
		return nil, err
	}
	m.lattice, m.batch = l, newBatch(m.all.words)
	return l, nil
}

// count each item, unless that was done with every Add: by columns it takes a tenth of the time.
func (m *Miner) count() {
	if m.counted {
		return
	}
	var items []uint16
	for item := range m.seen.All() {
		items = append(items, uint16(item))
	}
	m.all.columns(m.cols, items)
	weigher := m.all.weigher()
	for _, item := range items {
		weight, n := weigher.both(m.cols[item], m.cols[item])
		m.single[item] = node{weight: weight, rows: uint32(n)}
	}
	m.counted = true
}

func (m *Miner) forget() { m.lattice, m.batch = nil, nil }

// suits reports whether what was mined answers to the options without mining anything from nothing.
func (m *Miner) suits(o Options) bool {
	return m.lattice != nil && m.lattice.min <= o.MinSupport && m.lattice.maxLen >= o.MaxLen
}
