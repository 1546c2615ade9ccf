// SPDX-License-Identifier: Apache-2.0

package assoc

import (
	"runtime"
	"runtime/metrics"
	"syscall"
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

// cpu is how long this process has computed: the clock on the wall tells what else the machine does.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// peak of the heap, objects and what is not collected yet, while something is done.
func peak(do func()) (megabytes float64) {
	runtime.GC()
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	before, most := sample[0].Value.Uint64(), uint64(0)
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			metrics.Read(sample)
			most = max(most, sample[0].Value.Uint64())
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	}()
	do()
	close(stop)
	<-done
	return float64(most-before) / 1e6
}

// BenchmarkDay adds a day's bursts and mines the rules, on one core. Making the bursts is not counted.
func BenchmarkDay(b *testing.B) {
	for _, name := range []string{"distinct", "repeated"} {
		b.Run(name, func(b *testing.B) {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
			b.ReportAllocs()
			var d dayOf
			for b.Loop() {
				h := days[name]()
				var m *Miner
				d.most = max(d.most, peak(func() { m = d.run(b, h) }))
				d.more(b, h, m)
			}
			b.ReportMetric(d.most, "peak-MB")
			b.ReportMetric(float64(d.rows), "rows")
			b.ReportMetric(float64(d.sets), "itemsets")
			b.ReportMetric(float64(d.rules), "rules")
			b.ReportMetric(d.adding.Seconds(), "cpu-s-adding")
			b.ReportMetric(d.mining.Seconds(), "cpu-s-mining")
			b.ReportMetric(d.both.Seconds(), "cpu-s")
			b.ReportMetric(d.wall.Seconds(), "wall-s")
			b.ReportMetric(d.batch.Seconds(), "cpu-s-batch")
			b.ReportMetric(d.target.Seconds(), "cpu-s-target")
		})
	}
}

// least of the times it took: what else the machine does only adds to them.
func least(of *time.Duration, took time.Duration) {
	if *of == 0 || took < *of {
		*of = took
	}
}

// dayOf measures.
type dayOf struct {
	adding, mining, both, wall, batch, target time.Duration
	most                                      float64
	rows, sets, rules                         int
}

func (d *dayOf) run(b *testing.B, h *host) *Miner {
	m := New(400)
	bursts := make([]Bits, 1000)
	var adding, wall time.Duration
	for range day / len(bursts) { // as they come: nobody has them all
		h.fill(bursts)
		began, start := time.Now(), cpu(b)
		for _, t := range bursts {
			m.Add(t, 1)
		}
		adding += cpu(b) - start
		wall += time.Since(began)
	}
	began, start := time.Now(), cpu(b)
	rules, err := m.Rules(dayOptions)
	if err != nil {
		b.Fatal(err)
	}
	least(&d.adding, adding)
	least(&d.mining, cpu(b)-start)
	least(&d.both, adding+cpu(b)-start)
	least(&d.wall, wall+time.Since(began))
	d.rows, d.sets, d.rules = m.Rows(), m.lattice.frequent, len(rules)
	return m
}

// more measures 1000 bursts that are added, and one Then's rules from nothing.
func (d *dayOf) more(b *testing.B, h *host, m *Miner) {
	bursts := h.bursts(1000)
	start := cpu(b)
	for _, t := range bursts {
		m.Add(t, 1)
	}
	if _, err := m.mined(dayOptions.settled()); err != nil {
		b.Fatal(err)
	}
	least(&d.batch, cpu(b)-start)
	m.forget()
	start = cpu(b)
	if _, err := m.RulesFor(100, dayOptions); err != nil {
		b.Fatal(err)
	}
	least(&d.target, cpu(b)-start)
}

// BenchmarkMiners compares with the oracles, on as many bursts as these can bear.
func BenchmarkMiners(b *testing.B) {
	h := days["distinct"]()
	var db []made
	for _, t := range h.bursts(5000) {
		db = append(db, made{t, 1})
	}
	ours := func(db []made, least uint64, maxLen int) []Itemset {
		sets, err := filled(400, db).Itemsets(Options{MinSupport: least, MaxLen: maxLen})
		if err != nil {
			b.Fatal(err)
		}
		return sets
	}
	for _, of := range []struct {
		name string
		mine oracle
	}{{"ours", ours}, {"fpgrowth", fpgrowth}, {"apriori", apriori}} {
		b.Run(of.name, func(b *testing.B) {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
			b.ReportAllocs()
			found, most := 0, 0.0
			var used time.Duration
			for b.Loop() {
				most = max(most, peak(func() {
					start := cpu(b)
					found = len(of.mine(db, 100, 3))
					used += cpu(b) - start
				}))
			}
			b.ReportMetric(used.Seconds()/float64(b.N), "cpu-s")
			b.ReportMetric(most, "peak-MB")
			b.ReportMetric(float64(found), "itemsets")
		})
	}
}
