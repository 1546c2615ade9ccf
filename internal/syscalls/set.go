// SPDX-License-Identifier: Apache-2.0

package syscalls

import (
	"iter"
	"math/bits"
	"slices"
)

// MaxNr is the first number that no Set holds. Kernels have fewer than 512 numbers today.
const MaxNr = 1024

// Set is a set of call numbers of one ABI. The zero Set is empty; Sets are compared with ==.
type Set [MaxNr / 64]uint64

// SetOf the given numbers. It panics on a number past MaxNr.
func SetOf(nrs ...uint32) (s Set) {
	for _, nr := range nrs {
		s.Add(nr)
	}
	return s
}

func (s *Set) Add(nr uint32)     { s[nr/64] |= 1 << (nr % 64) }
func (s *Set) Remove(nr uint32)  { s[nr/64] &^= 1 << (nr % 64) }
func (s Set) Has(nr uint32) bool { return nr < MaxNr && s[nr/64]&(1<<(nr%64)) != 0 }
func (s Set) Empty() bool        { return s == Set{} }

// Len is the number of members.
func (s Set) Len() (n int) {
	for _, w := range s {
		n += bits.OnesCount64(w)
	}
	return n
}

func (s Set) Union(t Set) Set {
	for i := range s {
		s[i] |= t[i]
	}
	return s
}

func (s Set) Minus(t Set) Set {
	for i := range s {
		s[i] &^= t[i]
	}
	return s
}

func (s Set) Intersect(t Set) Set {
	for i := range s {
		s[i] &= t[i]
	}
	return s
}

// Contains reports whether every member of t is in s.
func (s Set) Contains(t Set) bool { return t.Minus(s).Empty() }

// All members in ascending order.
func (s Set) All() iter.Seq[uint32] {
	return func(yield func(uint32) bool) {
		for i, w := range s {
			for ; w != 0; w &= w - 1 {
				if !yield(uint32(i*64 + bits.TrailingZeros64(w))) {
					return
				}
			}
		}
	}
}

// Names of the members in the ABI, sorted. It is never nil, so that an empty set marshals as [].
func (s Set) Names(a ABI) []string {
	names := make([]string, 0, s.Len())
	for nr := range s.All() {
		names = append(names, Name(a, nr))
	}
	slices.Sort(names)
	return names
}
