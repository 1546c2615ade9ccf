// SPDX-License-Identifier: Apache-2.0

package assoc

import (
	"iter"
	"math/bits"
)

// MaxItems is how many items there can be: they are numbered from 0.
const MaxItems = 1024

const maxWords = MaxItems / 64

// Bits is a set of items. The zero Bits is empty; Bits are compared with ==.
type Bits [maxWords]uint64

// BitsOf the given items. It panics on an item past MaxItems.
func BitsOf(items ...int) (b Bits) {
	for _, item := range items {
		b.Add(item)
	}
	return b
}

// Add panics on an item past MaxItems.
func (b *Bits) Add(item int)     { b[uint(item)/64] |= 1 << (uint(item) % 64) }
func (b *Bits) Remove(item int)  { b[uint(item)/64] &^= 1 << (uint(item) % 64) }
func (b Bits) Has(item int) bool { return uint(item) < MaxItems && b[item/64]&(1<<(item%64)) != 0 }

// Within reports whether every item of b is in other.
func (b *Bits) Within(other *Bits) bool {
	for i, w := range b {
		if w&^other[i] != 0 {
			return false
		}
	}
	return true
}

func (b Bits) Count() (n int) {
	for _, w := range b {
		n += bits.OnesCount64(w)
	}
	return n
}

// All items, in ascending order.
func (b Bits) All() iter.Seq[int] {
	return func(yield func(int) bool) {
		for i, w := range b {
			for ; w != 0; w &= w - 1 {
				if !yield(i*64 + bits.TrailingZeros64(w)) {
					return
				}
			}
		}
	}
}
