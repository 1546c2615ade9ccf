// SPDX-License-Identifier: Apache-2.0

package assoc

import (
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"testing"
	"time"
)

// A host's day: a million bursts of up to 60 items over 400, of 250 kinds of request.
const day = 1_000_000

var days = map[string]func() *host{
	// Nearly every burst is another.
	"distinct": func() *host { return newHost(400, 250, 8, 48, 0.04, 12) },
	// A few thousand different ones, as BPF programs that count equal bursts see them.
	"repeated": func() *host { return newHost(400, 250, 8, 48, 0.0005, 1) },
}

var dayOptions = Options{MinSupport: day / 100, MinConfidence: 0.9, MaxLen: 3}

// peak of the heap beyond what there was, while something is done.
func peak(do func()) (megabytes float64) {
	runtime.GC()
	var before, m runtime.MemStats
	runtime.ReadMemStats(&before)
	var stop atomic.Bool
	done := make(chan uint64)
	go func() {
		most := uint64(0)
		for !stop.Load() {
			runtime.ReadMemStats(&m)
			most = max(most, m.HeapInuse)
			time.Sleep(5 * time.Millisecond)
		}
		done <- most
	}()
	do()
	stop.Store(true)
	return (float64(<-done) - float64(before.HeapInuse)) / 1e6
}

func BenchmarkDay(b *testing.B) {
	for _, name := range []string{"distinct", "repeated"} {
		h := days[name]()
		bursts := h.bursts(day)
		b.Run(name, func(b *testing.B) {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
			defer debug.SetGCPercent(debug.SetGCPercent(20))
			b.ReportAllocs()
			var rules []Rule
			var rows, sets int
			var add time.Duration
			most := 0.0
			for b.Loop() {
				most = max(most, peak(func() {
					start := time.Now()
					m := New(400)
					for _, t := range bursts {
						m.Add(t, 1)
					}
					add += time.Since(start)
					var err error
					if rules, err = m.Rules(dayOptions); err != nil {
						b.Fatal(err)
					}
					rows, sets = m.Rows(), m.lattice.frequent
				}))
			}
			b.ReportMetric(most, "peak-MB")
			b.ReportMetric(float64(rows), "rows")
			b.ReportMetric(float64(sets), "itemsets")
			b.ReportMetric(float64(len(rules)), "rules")
			b.ReportMetric(add.Seconds()/float64(b.N), "s-adding")
		})
	}
}
