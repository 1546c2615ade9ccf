// SPDX-License-Identifier: Apache-2.0

package assoc

import (
	"math"
	"math/rand/v2"
)

// host makes bursts like those of a host's containers: each is of one of some kinds of request, kinds and items are about as
// unequally frequent as words (Zipf), a kind's bursts lack some of its items, and have some of any kind. Seeded.
type host struct {
	random *rand.Rand
	items  []float64 // cumulative
	kinds  []float64 // cumulative
	has    [][]int
	lacks  float64 // chance of each item
	noise  int     // at most so many others
}

func newHost(items, kinds, least, most int, lacks float64, noise int) *host {
	h := &host{random: rand.New(rand.NewPCG(4, 1)), items: zipf(items, 1), kinds: zipf(kinds, 0.8), lacks: lacks, noise: noise}
	for range kinds {
		set := Bits{}
		for size := least + h.random.IntN(most-least+1); set.Count() < size; {
			set.Add(h.any(h.items))
		}
		var has []int
		for item := range set.All() {
			has = append(has, item)
		}
		h.has = append(h.has, has)
	}
	return h
}

// zipf is the cumulative distribution over n ranks with the given exponent.
func zipf(n int, exponent float64) []float64 {
	out := make([]float64, n)
	sum := 0.0
	for i := range out {
		sum += math.Pow(float64(i+3), -exponent)
		out[i] = sum
	}
	for i := range out {
		out[i] /= sum
	}
	return out
}

func (h *host) any(of []float64) int {
	x := h.random.Float64()
	lo, hi := 0, len(of)-1
	for lo < hi {
		if mid := (lo + hi) / 2; of[mid] < x {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}

func (h *host) burst() (b Bits) {
	for _, item := range h.has[h.any(h.kinds)] {
		if h.random.Float64() >= h.lacks {
			b.Add(item)
		}
	}
	for range h.random.IntN(h.noise + 1) {
		b.Add(h.any(h.items))
	}
	return b
}

func (h *host) bursts(n int) []Bits { return h.fill(make([]Bits, n)) }

func (h *host) fill(out []Bits) []Bits {
	for i := range out {
		out[i] = h.burst()
	}
	return out
}
