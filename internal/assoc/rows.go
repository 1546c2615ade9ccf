// SPDX-License-Identifier: Apache-2.0

package assoc

import (
	"hash/maphash"
	"math"
	"math/bits"
	"slices"
)

// chunkRows is a power of two. Rows are kept in chunks because a slice that grows is in memory twice.
const chunkRows = 1 << 12

// rows are different transactions with their weights, each in as few words as the items need.
type rows struct {
	words   int
	n       int
	chunks  [][]uint64
	weights [][]uint64
	heavy   []uint64 // bitmap of the rows whose weight is not 1

	// table finds a row: open addressing, each entry the upper half of its hash and below it the row's number plus one. A
	// row's slot is the uppermost bits of its hash, so that the table grows without the rows and in their order there.
	table []uint64
	shift int       // of a hash, to its slot
	seed  [2]uint64 // whoever makes the transactions must not be able to make them collide
}

func newRows(words int) *rows {
	seed := maphash.MakeSeed()
	return &rows{
		words: words,
		table: make([]uint64, 64), shift: 64 - 6,
		seed: [2]uint64{maphash.String(seed, "whittle") | 1, maphash.String(seed, "assoc")},
	}
}

// add weight to a row, whose number it returns, and whether it is new. More than 2³²−2 rows do not fit any memory.
func (r *rows) add(t []uint64, weight uint64) (id int, added bool) {
	hash := r.hash(t)
	mask := uint64(len(r.table) - 1)
	slot := hash >> r.shift
	for ; r.table[slot] != 0; slot = (slot + 1) & mask {
		entry := r.table[slot]
		if id := int(uint32(entry)) - 1; entry>>32 == hash>>32 && slices.Equal(r.row(id), t) {
			r.reweigh(id, weight)
			return id, false
		}
	}
	id = r.n
	if id%chunkRows == 0 {
		r.chunks = append(r.chunks, make([]uint64, chunkRows*r.words))
		r.weights = append(r.weights, make([]uint64, chunkRows))
		r.heavy = append(r.heavy, make([]uint64, chunkRows/64)...)
	}
	r.n++
	copy(r.row(id), t)
	r.reweigh(id, weight)
	r.table[slot] = hash>>32<<32 | uint64(id+1)
	if r.n*8 > len(r.table)*5 {
		r.grow()
	}
	return id, true
}

func (r *rows) row(id int) []uint64 {
	at := id % chunkRows * r.words
	return r.chunks[id/chunkRows][at : at+r.words : at+r.words]
}

func (r *rows) weight(id int) uint64 { return r.weights[id/chunkRows][id%chunkRows] }

func (r *rows) reweigh(id int, weight uint64) {
	w := &r.weights[id/chunkRows][id%chunkRows]
	*w = plus(*w, weight)
	if *w != 1 {
		r.heavy[id/64] |= 1 << (id % 64)
	}
}

// grow the table to twice its size.
func (r *rows) grow() {
	old := r.table
	r.table = make([]uint64, 2*len(old))
	r.shift--
	mask := uint64(len(r.table) - 1)
	for _, entry := range old {
		if entry == 0 {
			continue
		}
		slot := entry >> r.shift
		for r.table[slot] != 0 {
			slot = (slot + 1) & mask
		}
		r.table[slot] = entry
	}
}

// hash folds 128-bit products, as wyhash does (github.com/wangyi-fudan/wyhash).
func (r *rows) hash(t []uint64) uint64 {
	h := r.seed[1]
	for _, w := range t {
		hi, lo := bits.Mul64(w^h, r.seed[0]^0x9e3779b97f4a7c15)
		h = hi ^ lo ^ bits.RotateLeft64(h, 23)
	}
	hi, lo := bits.Mul64(h^r.seed[1], 0xd6e8feb86659fd93)
	return hi ^ lo
}

// count a row for each of its items.
func count(items []node, row []uint64, weight uint64, added bool) {
	for i, w := range row {
		for ; w != 0; w &= w - 1 {
			n := &items[i*64+bits.TrailingZeros64(w)]
			n.weight = plus(n.weight, weight)
			if added {
				n.rows++
			}
		}
	}
}

// plus saturates. It makes sums of weights independent of their order, which a sum that wraps is not once it is compared.
func plus(a, b uint64) uint64 {
	sum, carry := bits.Add64(a, b, 0)
	if carry != 0 {
		return math.MaxUint64
	}
	return sum
}

// times saturates.
func times(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	if hi != 0 {
		return math.MaxUint64
	}
	return lo
}
