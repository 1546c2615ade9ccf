// SPDX-License-Identifier: Apache-2.0

// Package assoc mines association rules over weighted bitset transactions. It knows nothing of what the items are.
package assoc

import (
	"errors"
)

// Defaults of Options.
const (
	DefaultMaxLen = 4
	DefaultLimit  = 1 << 21
)

// ErrTooMany is returned when more than Options.Limit itemsets are frequent. A higher MinSupport or a lower MaxLen helps.
var ErrTooMany = errors.New("too many frequent itemsets")

// Options of mining.
type Options struct {
	MinSupport    uint64  // weight of the transactions that have all the items; 0 is 1
	MinConfidence float64 // of a rule
	MaxLen        int     // items of an itemset, and of a rule's If and Then together; 0 is DefaultMaxLen
	Limit         int     // frequent itemsets that are borne; 0 is DefaultLimit
}

// Miner of transactions over a number of items. It is not for several goroutines at once.
type Miner struct{}

// New Miner for the items below the given number. It panics past MaxItems.
func New(items int) *Miner { return &Miner{} }

// Add a transaction that was made weight times.
func (m *Miner) Add(t Bits, weight uint64) {}

// Total weight of all transactions.
func (m *Miner) Total() uint64 { return 0 }

// Rows is how many different transactions there are.
func (m *Miner) Rows() int { return 0 }

// Itemsets that are frequent, the shorter ones first, then in the order of their items.
func (m *Miner) Itemsets(o Options) ([]Itemset, error) { return nil, nil }

// Rules that hold, in the order of Then, the length of If, the items of If.
func (m *Miner) Rules(o Options) ([]Rule, error) { return nil, nil }

// RulesFor one Then: what Rules has for it, without mining what does not lead there.
func (m *Miner) RulesFor(then int, o Options) ([]Rule, error) { return nil, nil }
