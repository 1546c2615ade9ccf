// SPDX-License-Identifier: Apache-2.0

package assoc

import "math/bits"

// A column is the bitmap of the rows that have an item; and columns of several items is the bitmap of those with all.

// both is how many rows two columns share. b is at least as long as a.
func both(a, b []uint64) (n int) {
	b = b[:len(a)]
	// Four at a time: the loop's own work is as much as the counting.
	for len(a) >= 4 && len(b) >= 4 {
		n += bits.OnesCount64(a[0]&b[0]) + bits.OnesCount64(a[1]&b[1]) + bits.OnesCount64(a[2]&b[2]) + bits.OnesCount64(a[3]&b[3])
		a, b = a[4:], b[4:]
	}
	for i, w := range a {
		n += bits.OnesCount64(w & b[i])
	}
	return n
}

// four counts the rows that a column shares with each of four. It takes half the time of both for each of them: what is
// around a population count is more work than the count.
func four(a []uint64, others *[4][]uint64) [4]int {
	b, c, d, e := others[0][:len(a)], others[1][:len(a)], others[2][:len(a)], others[3][:len(a)]
	var nb, nc, nd, ne int
	for i, w := range a {
		nb += bits.OnesCount64(w & b[i])
		nc += bits.OnesCount64(w & c[i])
		nd += bits.OnesCount64(w & d[i])
		ne += bits.OnesCount64(w & e[i])
	}
	return [4]int{nb, nc, nd, ne}
}

// and writes to out the rows that two columns share.
func and(out, a, b []uint64) []uint64 {
	out, b = out[:len(a)], b[:len(a)]
	for i, w := range a {
		out[i] = w & b[i]
	}
	return out
}

// plane is the bitmap of the rows that have one bit in the weight beyond their first; words that are 0 are left out.
type plane struct {
	at   []uint32
	word []uint64
}

// weigher adds up the weights of the rows of a column. A row counts 1, and the planes add what is beyond: most rows of a
// busy host have weight 1, and all that is done for those is to count them.
type weigher struct{ planes []plane }

// add a row's weight. Rows come in ascending order.
func (w *weigher) add(row int, weight uint64) {
	at := uint32(row / 64)
	for rest := weight - 1; rest != 0; rest &= rest - 1 {
		k := bits.TrailingZeros64(rest)
		for k >= len(w.planes) {
			w.planes = append(w.planes, plane{})
		}
		p := &w.planes[k]
		if n := len(p.at); n == 0 || p.at[n-1] != at {
			p.at, p.word = append(p.at, at), append(p.word, 0)
		}
		p.word[len(p.word)-1] |= 1 << (row % 64)
	}
}

func (w *weigher) reset() {
	for k := range w.planes {
		w.planes[k].at, w.planes[k].word = w.planes[k].at[:0], w.planes[k].word[:0]
	}
}

// both is how many rows two columns share, and what they weigh.
func (w *weigher) both(a, b []uint64) (weight uint64, n int) {
	n = both(a, b)
	return w.weigh(n, a, b), n
}

// weigh the n rows that two columns share.
func (w *weigher) weigh(n int, a, b []uint64) uint64 {
	weight := uint64(n)
	if n == 0 {
		return 0
	}
	for k := range w.planes {
		p, heavy := &w.planes[k], 0
		for i, at := range p.at {
			heavy += bits.OnesCount64(p.word[i] & a[at] & b[at])
		}
		weight = plus(weight, times(uint64(heavy), 1<<k))
	}
	return weight
}

// only writes to out a weigher for sets whose rows are among some.
func (w *weigher) only(rows []uint64, out *weigher) {
	out.reset()
	for len(out.planes) < len(w.planes) {
		out.planes = append(out.planes, plane{})
	}
	for k, p := range w.planes {
		for i, at := range p.at {
			if word := p.word[i] & rows[at]; word != 0 {
				out.planes[k].at, out.planes[k].word = append(out.planes[k].at, at), append(out.planes[k].word, word)
			}
		}
	}
}

// weigher of all rows.
func (r *rows) weigher() *weigher {
	w := &weigher{}
	for at, heavy := range r.heavy {
		for ; heavy != 0; heavy &= heavy - 1 {
			id := at*64 + bits.TrailingZeros64(heavy)
			w.add(id, r.weight(id))
		}
	}
	return w
}

// block reads 64 rows' words of the given place as columns: bit i of out[k] is bit k of row first+i.
func (r *rows) block(out *[64]uint64, first, word int) {
	have := min(64, r.n-first)
	chunk, at := r.chunks[first/chunkRows], first%chunkRows*r.words+word
	for i := range have {
		out[i] = chunk[at]
		at += r.words
	}
	clear(out[have:])
	transpose(out)
}

// columns brings the given items' columns up to all rows; have may hold shorter ones.
func (r *rows) columns(have [][]uint64, items []uint16) {
	blocks := (r.n + 63) / 64
	from := blocks
	var words [maxWords][]uint16
	for _, item := range items {
		words[item/64] = append(words[item/64], item)
		// The last word may have been written when the rows did not fill it.
		from = min(from, max(len(have[item])-1, 0))
		have[item] = append(have[item], make([]uint64, blocks-len(have[item]))...)
	}
	var block [64]uint64
	for at := from; at < blocks; at++ {
		for word, items := range words {
			if len(items) == 0 {
				continue
			}
			r.block(&block, at*64, word)
			for _, item := range items {
				have[item][at] = block[item%64]
			}
		}
	}
}

// transpose a matrix of 64×64 bits (H. S. Warren, Hacker's Delight, 2nd ed., §7-3), two steps in a pass, with distances that
// are constants once this is inlined.
func transpose(m *[64]uint64) {
	for k := range 16 {
		a, c := exchange(m[k], m[k+32], 32, 0x00000000ffffffff)
		b, d := exchange(m[k+16], m[k+48], 32, 0x00000000ffffffff)
		m[k], m[k+16] = exchange(a, b, 16, 0x0000ffff0000ffff)
		m[k+32], m[k+48] = exchange(c, d, 16, 0x0000ffff0000ffff)
	}
	for i := 0; i < 64; i += 16 {
		for k := i; k < i+4; k++ {
			m := (*[13]uint64)(m[k : k+13])
			a, c := exchange(m[0], m[8], 8, 0x00ff00ff00ff00ff)
			b, d := exchange(m[4], m[12], 8, 0x00ff00ff00ff00ff)
			m[0], m[4] = exchange(a, b, 4, 0x0f0f0f0f0f0f0f0f)
			m[8], m[12] = exchange(c, d, 4, 0x0f0f0f0f0f0f0f0f)
		}
	}
	for i := 0; i < 64; i += 4 {
		m := (*[4]uint64)(m[i : i+4])
		a, c := exchange(m[0], m[2], 2, 0x3333333333333333)
		b, d := exchange(m[1], m[3], 2, 0x3333333333333333)
		m[0], m[1] = exchange(a, b, 1, 0x5555555555555555)
		m[2], m[3] = exchange(c, d, 1, 0x5555555555555555)
	}
}

func exchange(a, b uint64, distance int, mask uint64) (uint64, uint64) {
	t := (a>>distance ^ b) & mask
	return a ^ t<<distance, b ^ t
}
