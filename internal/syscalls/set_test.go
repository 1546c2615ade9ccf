// SPDX-License-Identifier: Apache-2.0

package syscalls

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// model draws a Set and the same set as a map.
func model(t *rapid.T, label string) (Set, map[uint32]bool) {
	nrs := rapid.SliceOf(rapid.Uint32Range(0, MaxNr-1)).Draw(t, label)
	m := map[uint32]bool{}
	for _, nr := range nrs {
		m[nr] = true
	}
	return SetOf(nrs...), m
}

func TestSetAgainstMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, ms := model(t, "s")
		u, mu := model(t, "u")
		for _, op := range []struct {
			name string
			got  Set
			want func(nr uint32) bool
		}{
			{"s", s, func(nr uint32) bool { return ms[nr] }},
			{"union", s.Union(u), func(nr uint32) bool { return ms[nr] || mu[nr] }},
			{"minus", s.Minus(u), func(nr uint32) bool { return ms[nr] && !mu[nr] }},
			{"intersect", s.Intersect(u), func(nr uint32) bool { return ms[nr] && mu[nr] }},
		} {
			var want []uint32
			for nr := range uint32(MaxNr) {
				if op.want(nr) {
					want = append(want, nr)
				}
				if op.got.Has(nr) != op.want(nr) {
					t.Fatalf("%s has %d: %v", op.name, nr, op.got.Has(nr))
				}
			}
			if got := slices.Collect(op.got.All()); !slices.Equal(got, want) {
				t.Fatalf("%s.All() = %v, want %v", op.name, got, want)
			}
			if op.got.Len() != len(want) || op.got.Empty() != (len(want) == 0) {
				t.Fatalf("%s: Len %d, Empty %v, want %d members", op.name, op.got.Len(), op.got.Empty(), len(want))
			}
		}
	})
}

func TestSetLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, _ := model(t, "s")
		u, _ := model(t, "u")
		v, _ := model(t, "v")
		for law, holds := range map[string]bool{
			"union commutes":            s.Union(u) == u.Union(s),
			"union associates":          s.Union(u).Union(v) == s.Union(u.Union(v)),
			"minus of a union":          s.Minus(u.Union(v)) == s.Minus(u).Minus(v),
			"parts make the whole":      s.Minus(u).Union(s.Intersect(u)) == s,
			"parts are apart":           s.Minus(u).Intersect(u).Empty(),
			"intersect distributes":     s.Intersect(u.Union(v)) == s.Intersect(u).Union(s.Intersect(v)),
			"a union contains both":     s.Union(u).Contains(s) && s.Union(u).Contains(u),
			"containing both ways is =": (s.Contains(u) && u.Contains(s)) == (s == u),
			"adding what is there":      SetOf(slices.Collect(s.All())...) == s,
		} {
			if !holds {
				t.Fatalf("%s: s %v, u %v, v %v", law, s, u, v)
			}
		}
		removed := s
		for nr := range u.All() {
			removed.Remove(nr)
		}
		if removed != s.Minus(u) {
			t.Fatalf("removing one by one: %v, want %v", removed, s.Minus(u))
		}
	})
}

func TestNamesRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		abi := rapid.SampledFrom(ABIs[:]).Draw(t, "abi")
		s, _ := model(t, "s")
		names := s.Names(abi)
		if !slices.IsSorted(names) || names == nil {
			t.Fatalf("names %v are not sorted, or nil", names)
		}
		var back Set
		for _, name := range names {
			nr, ok := Number(abi, name)
			if !ok {
				t.Fatalf("%s has no number", name)
			}
			back.Add(nr)
		}
		if back != s {
			t.Fatalf("%v came back as %v", names, back.Names(abi))
		}
	})
}

func TestSetBounds(t *testing.T) {
	var s Set
	if s.Has(MaxNr) || s.Has(^uint32(0)) {
		t.Error("a set has a number past MaxNr")
	}
	defer func() {
		if recover() == nil {
			t.Error("Add(MaxNr) does not panic")
		}
	}()
	s.Add(MaxNr)
}

// All stops when its consumer does.
func TestAllStops(t *testing.T) {
	for nr := range SetOf(1, 64, 1023).All() {
		if nr == 64 {
			return
		}
	}
	t.Error("64 was not reached")
}
