// SPDX-License-Identifier: Apache-2.0

package assoc

import "math/bits"

// order is a ranking of items: a set's items are looked at in the order of their ranks.
type order struct {
	items []uint16 // by rank
	rank  []uint16 // by item
}

// ranked are all rows again, of the frequent items only, in the order of ranks instead of items: the rarer an item, the
// lower its rank, the fewer rows have it, and the more items come after it. Rows are kept word by word, the first words of all
// rows before the second ones: most of what is read are the last 64 ranks, which are the last word.
type ranked struct {
	from  *rows
	cols  [][]uint64 // by rank
	words [][]uint64 // by place/64 and row
	pad   int        // places before the first rank, so that the last word is full
}

// rankRows reads columns of items in the order of their ranks and writes rows of them.
func rankRows(r *rows, cols [][]uint64) *ranked {
	out := &ranked{from: r, cols: cols, pad: -len(cols) & 63}
	blocks := (r.n + 63) / 64
	for place := 0; place < len(cols)+out.pad; place += 64 {
		rows := make([]uint64, blocks*64)
		from := max(place-out.pad, 0)
		some := cols[from : place-out.pad+64]
		for at := range blocks {
			block := (*[64]uint64)(rows[at*64:])
			for i, col := range some {
				block[(from+i+out.pad)&63] = col[at]
			}
			transpose(block)
		}
		out.words = append(out.words, rows)
	}
	return out
}

// projection is the columns of the rows that have one item, without the other rows: the columns are as short as the item
// is rare. It is used again for the next item.
type projection struct {
	view
	n     int // rows
	arena []uint64
}

// view of rows by their columns.
type view struct {
	weigher
	cols [][]uint64 // by rank; nil for the ranks before
}

// reserve memory for the largest of the projections, so that it is not asked for at each that is larger than those before.
func (p *projection) reserve(r *ranked) {
	most := 0
	for rank, col := range r.cols {
		most = max(most, (len(r.cols)-rank)*((both(col, col)+63)/64))
	}
	p.cols, p.arena = make([][]uint64, len(r.cols)), make([]uint64, most)
}

// project the rows that have the item of the given rank, for the ranks from first on.
func (p *projection) project(r *ranked, rank, first int) {
	col := r.cols[rank]
	p.n = both(col, col)
	p.lay(first)
	p.reset()
	g := gathering{projection: p, ranked: r, first: first}
	// The heavy rows come first, where they fill few words of the planes.
	for at, w := range col {
		for w &= r.from.heavy[at]; w != 0; w &= w - 1 {
			id := at*64 + bits.TrailingZeros64(w)
			p.add(g.done*64+g.have, r.from.weight(id))
			g.row(id)
		}
	}
	for at, w := range col {
		for w &^= r.from.heavy[at]; w != 0; w &= w - 1 {
			g.row(at*64 + bits.TrailingZeros64(w))
		}
	}
	if g.have > 0 {
		g.write()
	}
}

// lay out the columns.
func (p *projection) lay(first int) {
	words := (p.n + 63) / 64
	clear(p.cols[:first])
	for rank := first; rank < len(p.cols); rank++ {
		at := (rank - first) * words
		p.cols[rank] = p.arena[at : at+words : at+words]
	}
}

// gathering of rows, 64 at a time, into a projection's columns from rank first on.
type gathering struct {
	*projection
	*ranked
	first int
	ids   [64]uint32
	have  int
	done  int // words of the columns
}

func (g *gathering) row(id int) {
	g.ids[g.have] = uint32(id)
	if g.have++; g.have == 64 {
		g.write()
	}
}

func (g *gathering) write() {
	var block [64]uint64
	cols := g.projection.cols
	for word := (g.first + g.pad) / 64; word < len(g.words); word++ {
		rows := g.words[word]
		for i, id := range g.ids[:g.have] {
			block[i&63] = rows[id]
		}
		clear(block[g.have:])
		transpose(&block)
		from, to := max(word*64-g.pad, g.first), word*64-g.pad+64
		for i, col := range cols[from:to] {
			col[g.done] = block[(from+i+g.pad)&63]
		}
	}
	g.have = 0
	g.done++
}
