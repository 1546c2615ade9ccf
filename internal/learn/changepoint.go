// SPDX-License-Identifier: Apache-2.0

package learn

import "math"

// The method is the maximum-likelihood change-point of a Poisson process (Akman and Raftery, "Asymptotic inference for a
// change-point Poisson process", Annals of Statistics 14(4), 1986), accepted when it is worth its parameters by Schwarz's
// criterion ("Estimating the dimension of a model", Annals of Statistics 6(2), 1978).
const methodChangePoint = "penalised Poisson change-point"

// The events are the calls never made before, n of them in t seconds. With a constant rate in each part and the rates
// at their maximum-likelihood values n/t, the logarithm of the likelihood is, up to terms that cancel,
//
//	l(k) = f(n1, t1) + f(n2, t2) with f(n, t) = n log(n/t)
//
// where the part before boundary k has n1 events in t1 seconds and the part after it n2 in t2. No change gives
// f(n1+n2, t1+t2). A change has two parameters more, where it is and the second rate, so that Schwarz asks for a gain
// above (2/2) log n.
func logLikelihood(n int, t float64) float64 {
	if n == 0 {
		return 0
	}
	// Epochs that begin at the same time have no length; a microsecond is shorter than any epoch with a call in it.
	return float64(n) * math.Log(float64(n)/max(t, 1e-6))
}

// changePoint is the boundary in (0, end) where the rate of new calls most likely fell, judged by the epochs [0, end), and
// whether it is credible. Only boundaries right after an epoch with something new can be the maximum.
func (s *series) changePoint(end int) (boundary int, credible bool) {
	total := s.freshIn(0, end)
	best := math.Inf(-1)
	n := 0
	for e := range end - 1 {
		n += s.fresh[e]
		if s.fresh[e] == 0 {
			continue
		}
		before, after := s.start[e+1], s.start[end]-s.start[e+1]
		if after <= 0 || float64(n)*after <= float64(total-n)*before {
			continue // the rate rose
		}
		if l := logLikelihood(n, before) + logLikelihood(total-n, after); l > best {
			best, boundary = l, e+1
		}
	}
	return boundary, best-logLikelihood(total, s.start[end]) > math.Log(float64(max(total, 1)))
}

// firstChange is the first boundary that the epochs up to its horizon make credible as the end of booting and after which
// the service waits again and again. Later epochs cannot move it.
func (s *series) firstChange(end int, horizon float64) (boundary int, ok bool) {
	for e := range end {
		if s.fresh[e] == 0 {
			continue
		}
		until, known := s.after(e+1, horizon, end)
		if !known {
			return 0, false
		}
		if k, credible := s.changePoint(until); credible && k == e+1 && s.waits(k, end) {
			return k, true
		}
	}
	return 0, false
}

// waits reports whether the service waits again and again: in five epochs, and until then in at least half of those in which
// it did anything at all. A batch job does not wait, and a script waits once for each of its children. Later epochs cannot
// change the answer from yes to no.
func (s *series) waits(from, to int) bool {
	waited, active := 0, 0
	for e := from; e < to; e++ {
		if s.active[e] {
			active++
		}
		if s.waited[e] {
			waited++
		}
		if waited == enoughWaits {
			return 2*waited >= active
		}
	}
	return false
}

const enoughWaits = 5

// Below this part of the boot's rate new calls are put down to requests. Nothing was tuned here: a temporary server is
// started as the real one is, so its rate is of the same order.
const bootLike = 0.25

// extended is the boundary to which booting goes on after an epoch that was marked as ready: new calls keep arriving at
// a rate like the boot's, for longer than the first requests explain, and more likely than not fall only later.
func (s *series) extended(ready, end int, settling, horizon float64) int {
	// The boot's rate is taken over the time it was busy, not over a wait for the first client, and over no less than a
	// second: an epoch is about that long, and shorter rates cannot be compared with its rate.
	busy := 1.0
	for e := range ready {
		if s.fresh[e] > 0 {
			busy = max(busy, s.start[e+1])
		}
	}
	rate := float64(s.freshIn(0, ready)) / busy
	first, ok := s.after(ready, settling, end)
	if !ok || rate == 0 {
		return ready
	}
	boundary := ready
	for e := first; e < end; e++ {
		if s.fresh[e] == 0 {
			continue
		}
		// The part after the first requests must be boot-like by itself.
		if float64(s.freshIn(first, e+1)) < bootLike*rate*(s.start[e+1]-s.start[first]) {
			break
		}
		until, known := s.after(e+1, horizon, end)
		if !known {
			break
		}
		if k, credible := s.changePoint(until); credible && k == e+1 {
			boundary = k
		}
	}
	return boundary
}
