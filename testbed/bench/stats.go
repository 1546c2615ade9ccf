// SPDX-License-Identifier: Apache-2.0

package main

import "slices"

// sample of one variant in one round. It is clean when no other tracer was on the host meanwhile.
type sample struct {
	value float64
	clean bool
}

// series of one variant, one sample a round.
type series []sample

// minClean is how many clean samples are enough to leave the others out.
const minClean = 3

// values to judge by: the clean ones where there are enough.
func (s series) values() []float64 {
	var clean, all []float64
	for _, x := range s {
		all = append(all, x.value)
		if x.clean {
			clean = append(clean, x.value)
		}
	}
	if len(clean) >= minClean {
		return clean
	}
	return all
}

// usable tells how many samples count, and whether they are clean.
func (s series) usable() (n int, clean bool) {
	for _, x := range s {
		if x.clean {
			n++
		}
	}
	if n >= minClean {
		return n, true
	}
	return len(s), false
}

// above is the median of the differences to another series: round by round where both were measured in each round, else
// between the medians.
func (s series) above(over series) float64 {
	var differences series
	if len(s) == len(over) {
		for i, x := range s {
			differences = append(differences, sample{x.value - over[i].value, x.clean && over[i].clean})
		}
		return differences.median()
	}
	return s.median() - over.median()
}

func (s series) median() float64 { return median(s.values()) }

func (s series) least() float64 {
	v := s.values()
	if len(v) == 0 {
		return 0
	}
	return slices.Min(v)
}

func (s series) most() float64 {
	v := s.values()
	if len(v) == 0 {
		return 0
	}
	return slices.Max(v)
}

func median(v []float64) float64 { return quantile(v, 0.5) }

// quantile q of the values, between two of them by proportion.
func quantile(v []float64, q float64) float64 {
	if len(v) == 0 {
		return 0
	}
	v = slices.Sorted(slices.Values(v))
	at := q * float64(len(v)-1)
	i := int(at)
	if i == len(v)-1 {
		return v[i]
	}
	return v[i] + (at-float64(i))*(v[i+1]-v[i])
}
