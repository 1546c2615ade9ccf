// SPDX-License-Identifier: Apache-2.0

package assoc

import (
	"math"
	"testing"

	"pgregory.net/rapid"
)

func TestWilson(t *testing.T) {
	tests := []struct {
		name string
		p, n float64
		want float64
	}{
		// n/(n+z²) and the textbook's formula by hand, z = 1.6449.
		{"all of 10", 1, 10, 0.78706},
		{"all of 1", 1, 1, 0.26987},
		{"half of 100", 0.5, 100, 0.41885},
		{"none of 10", 0, 10, 0},
		{"no trials", 1, 0, 0},
		{"less than none", 1, -3, 0},
		{"not a number", 1, math.NaN(), 0},
		{"more than all", 2, 10, 0.78706},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := Wilson(test.p, test.n); math.Abs(got-test.want) > 1e-5 {
				t.Errorf("Wilson(%v, %v) = %v, want %v", test.p, test.n, got, test.want)
			}
		})
	}
}

// More trials with the same share, and a greater share of the same trials, never lower the bound.
func TestWilsonIsMonotone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, n := rapid.Float64Range(0, 1).Draw(t, "p"), rapid.Float64Range(1, 1e6).Draw(t, "n")
		more := rapid.Float64Range(0, 1e6).Draw(t, "more")
		higher := rapid.Float64Range(p, 1).Draw(t, "higher")
		low := Wilson(p, n)
		if low < 0 || low > p || Wilson(p, n+more) < low-1e-12 || Wilson(higher, n) < low-1e-12 {
			t.Fatalf("Wilson(%v, %v) = %v, with %v more %v, with %v %v", p, n, low, more, Wilson(p, n+more), higher, Wilson(higher, n))
		}
	})
}

func TestRule(t *testing.T) {
	tests := []struct {
		name                    string
		rule                    Rule
		confidence, lift, lower float64
	}{
		{"zero", Rule{}, 0, 0, 0},
		{"always, and often anyway", Rule{Support: 50, IfSupport: 50, ThenSupport: 100, Total: 100, IfRows: 50}, 1, 1, 0.94866},
		{"half, which is rare", Rule{Support: 5, IfSupport: 10, ThenSupport: 10, Total: 100, IfRows: 100}, 0.5, 5, 0.41885},
		{"a loop counts once", Rule{Support: 1e9, IfSupport: 1e9, ThenSupport: 1e9, Total: 1e9, IfRows: 1}, 1, 1, 0.26987},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := [3]float64{test.rule.Confidence(), test.rule.Lift(), test.rule.Lower()}
			for i, want := range [3]float64{test.confidence, test.lift, test.lower} {
				if math.Abs(got[i]-want) > 1e-5 {
					t.Errorf("%+v: confidence, lift, lower %v; want %v, %v, %v", test.rule, got, test.confidence, test.lift, test.lower)
				}
			}
		})
	}
}
