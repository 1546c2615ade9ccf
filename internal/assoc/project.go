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

// together is how many items' rows are copied in one pass: rows are read from the cache then instead of from memory.
const together = 4

// projection is the columns of the rows that have one item, without the other rows: the columns are as short as the item
// is rare. It is used again for other items.
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

// projections of the items of one rank after the other.
type projections [together]projection

// reserve memory for the largest of the projections, so that it is not asked for at each that is larger than those before.
func (r *ranked) reserve() *projections {
	most := 0
	for rank, col := range r.cols {
		most = max(most, (len(r.cols)-rank)*((both(col, col)+63)/64))
	}
	out := &projections{}
	for i := range out {
		out[i].cols, out[i].arena = make([][]uint64, len(r.cols)), make([]uint64, most)
	}
	return out
}

// project the rows that have an item, for each rank from first on and before end, as far as there are projections. Their
// columns are from the item's own on, which has all rows.
func (ps *projections) project(r *ranked, first, end int) {
	cols := r.cols[first:min(first+together, end)]
	var g [together]gathering
	for i, col := range cols {
		p := &ps[i]
		p.n = both(col, col)
		p.lay(first + i)
		p.reset()
		g[i] = gathering{projection: p, ranked: r, first: first + i}
	}
	// The heavy rows come first, where they fill few words of the planes.
	for at, heavy := range r.from.heavy[:len(cols[0])] {
		if heavy == 0 {
			continue
		}
		for i, col := range cols {
			for w := col[at] & heavy; w != 0; w &= w - 1 {
				id := at*64 + bits.TrailingZeros64(w)
				ps[i].add(g[i].done*64+g[i].have, r.from.weight(id))
				g[i].row(id)
			}
		}
	}
	for at, heavy := range r.from.heavy[:len(cols[0])] {
		for i, col := range cols {
			for w := col[at] &^ heavy; w != 0; w &= w - 1 {
				g[i].row(at*64 + bits.TrailingZeros64(w))
			}
		}
	}
	for i := range cols {
		if g[i].have > 0 {
			g[i].write()
		}
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

// four counts the rows that a column shares with those of one to four ranks.
func (v *view) four(rows []uint64, ranks []uint16) [4]int {
	var cols [4][]uint64
	for i := range cols {
		cols[i] = v.cols[ranks[min(i, len(ranks)-1)]]
	}
	return four(rows, &cols)
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
