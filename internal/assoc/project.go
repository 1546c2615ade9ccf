// SPDX-License-Identifier: Apache-2.0

package assoc

import "math/bits"

// order is a ranking of items: a set's items are looked at in the order of their ranks.
type order struct {
	items []uint16 // by rank
	rank  []uint16 // by item
}

// ranked are all rows again, with the columns in the order of ranks instead of items, for the ranks from first on: the
// rarer an item, the lower its rank, the fewer rows have it, and the more items come after it.
type ranked struct {
	from  *rows
	cols  [][]uint64 // by rank from first on
	words int
	rows  []uint64 // words to a row
}

// rankRows reads columns of items in the order of their ranks and writes rows of them.
func rankRows(r *rows, cols [][]uint64) *ranked {
	out := &ranked{from: r, cols: cols, words: (len(cols) + 63) / 64}
	blocks := (r.n + 63) / 64
	out.rows = make([]uint64, blocks*64*out.words)
	var block [64]uint64
	for at := range blocks {
		for word := range out.words {
			some := cols[word*64 : min(word*64+64, len(cols))]
			for i, col := range some {
				block[i] = col[at]
			}
			clear(block[len(some):])
			transpose(&block)
			to := at*64*out.words + word
			for i := range block {
				out.rows[to] = block[i]
				to += out.words
			}
		}
	}
	return out
}

// projection is the columns of the rows that have one item, without the other rows: the columns are as short as the item
// is rare. It is used again for the next item.
type projection struct {
	weigher
	n     int        // rows
	cols  [][]uint64 // by rank; nil for the ranks before
	arena []uint64
}

// project the rows that have the item of the given rank, for the ranks from first on.
func (p *projection) project(r *ranked, rank, first int) {
	col := r.cols[rank]
	p.n = both(col, col)
	p.lay(len(r.cols), first)
	p.reset()
	var ids [64]uint32
	have, done := 0, 0
	for at, w := range col {
		heavy := r.from.heavy[at]
		for ; w != 0; w &= w - 1 {
			bit := bits.TrailingZeros64(w)
			if heavy>>bit&1 != 0 {
				p.add(done*64+have, r.from.weight(at*64+bit))
			}
			ids[have] = uint32(at*64 + bit)
			if have++; have == 64 {
				p.gather(r, ids[:], done, first)
				have = 0
				done++
			}
		}
	}
	if have > 0 {
		p.gather(r, ids[:have], done, first)
	}
}

// lay out the columns.
func (p *projection) lay(ranks, first int) {
	words := (p.n + 63) / 64
	if need := (ranks - first) * words; need > len(p.arena) {
		p.arena = nil // so that it can be collected before there is the next
		p.arena = make([]uint64, need)
	}
	if p.cols == nil {
		p.cols = make([][]uint64, ranks)
	}
	clear(p.cols[:first])
	for rank := first; rank < ranks; rank++ {
		at := (rank - first) * words
		p.cols[rank] = p.arena[at : at+words : at+words]
	}
}

// gather up to 64 rows into the columns' word at.
func (p *projection) gather(r *ranked, ids []uint32, at, first int) {
	var block [64]uint64
	for word := first / 64; word < r.words; word++ {
		for i, id := range ids {
			block[i] = r.rows[int(id)*r.words+word]
		}
		clear(block[len(ids):])
		transpose(&block)
		for rank := max(word*64, first); rank < min(word*64+64, len(p.cols)); rank++ {
			p.cols[rank][at] = block[rank%64]
		}
	}
}
