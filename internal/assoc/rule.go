// SPDX-License-Identifier: Apache-2.0

package assoc

import "math"

// Itemset is a set of items that are often found together.
type Itemset struct {
	Items   Bits
	Support uint64 // weight of the transactions that have all of them
	Rows    uint32 // how many different transactions these are
}

// Rule says: a transaction that has all of If has Then, too. Weights saturate.
type Rule struct {
	If          Bits
	Then        int
	Support     uint64 // weight of the transactions that have If and Then
	IfSupport   uint64 // weight of those that have If
	ThenSupport uint64 // weight of those that have Then
	Total       uint64 // weight of all
	Rows        uint32 // how many different transactions have If and Then
	IfRows      uint32 // how many different transactions have If
}

// Confidence is the share of the weight of If that has Then, too.
func (r Rule) Confidence() float64 { return share(r.Support, r.IfSupport) }

// Lift is how many times likelier Then is where If is: 1 says that they have nothing to do with each other.
func (r Rule) Lift() float64 {
	if r.ThenSupport == 0 {
		return 0
	}
	return r.Confidence() / share(r.ThenSupport, r.Total)
}

// Lower is the 95 % lower bound of Confidence for as many observations as there are different transactions with If: the
// same transaction again is no new observation, because a loop makes it a thousand times.
func (r Rule) Lower() float64 { return r.LowerOf(float64(r.IfRows)) }

// LowerOf is the 95 % lower bound of Confidence if it was observed n times independently: IfSupport for transactions that
// are all independent, the number of workloads for ones that are independent only between workloads.
func (r Rule) LowerOf(n float64) float64 { return Wilson(r.Confidence(), n) }

// Wilson is the one-sided 95 % lower bound of a share p that was observed in n trials: the lower end of Wilson's score
// interval with z = 1.6449 (E. B. Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", JASA
// 22:209–212, 1927). It is 0 without trials.
func Wilson(p, n float64) float64 {
	const z = 1.6448536269514722 // the standard normal distribution's 95 % quantile
	if !(n > 0) {
		return 0
	}
	p = min(max(p, 0), 1)
	mid := p + z*z/(2*n)
	half := z * math.Sqrt(p*(1-p)/n+z*z/(4*n*n))
	return min(max((mid-half)/(1+z*z/n), 0), p)
}

func share(of, all uint64) float64 {
	if all == 0 {
		return 0
	}
	return float64(of) / float64(all)
}
