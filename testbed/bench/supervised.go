// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	supervisedRounds  = 2
	supervisedSamples = 4 // of each variant, a round
	barSupervised     = 0.98
)

var steadyVariants = []variant{unfiltered, standard, supervised}

// steady is what the samples of one service gave, for each variant.
type steady struct{ rate, p50, p99, cpu map[variant]series }

// supervisedSteady measures services in three containers each, that run beside each other.
func (b *bench) supervisedSteady(ctx context.Context) error {
	bed, err := b.supervisedBed(ctx)
	if err != nil {
		return err
	}
	all := map[*subject]steady{}
	for _, s := range bed.services() {
		all[s] = steady{map[variant]series{}, map[variant]series{}, map[variant]series{}, map[variant]series{}}
	}
	var spent, over time.Duration // the agent's CPU time
	var ours, refused int
	for n := range b.rounds(supervisedRounds) {
		for _, s := range bed.services() {
			r := steadyRound{bed: bed, into: all[s], instances: map[variant]*instance{}}
			if err := r.run(ctx, s, n); err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			spent, over = spent+r.spent, over+r.over
			ours, refused = max(ours, r.tracers), refused+r.refused
		}
		b.say("supervised: round %d of %d", n+1, b.rounds(supervisedRounds))
	}
	b.tabulateSteady(bed, all)
	t := b.report.tables[len(b.report.tables)-1]
	t.note("Meanwhile the agent used %.1f %% of one core, had %d programs attached to the tracepoints of system calls, and refused %d calls.",
		100*float64(spent)/float64(over), ours, refused)
	return nil
}

// steadyRound is one service in a new container of each variant.
type steadyRound struct {
	bed              *supervisedBed
	into             steady
	instances        map[variant]*instance
	spent, over      time.Duration
	tracers, refused int
}

func (r *steadyRound) run(ctx context.Context, s *subject, seed int) (err error) {
	defer func() {
		for _, i := range r.instances {
			err = errors.Join(err, r.bed.remove(i))
		}
	}()
	for _, v := range steadyVariants {
		if r.instances[v], err = r.bed.start(ctx, s, v); err != nil {
			delete(r.instances, v)
			return err
		}
		if err := r.instances[v].favour(); err != nil {
			return err
		}
		if _, err := s.load(ctx, r.instances[v]); err != nil { // the first requests fault its pages in
			return err
		}
	}
	if r.tracers, err = tracers(); err != nil {
		return err
	}
	before, err := r.bed.agent.usage()
	if err != nil {
		return err
	}
	began := time.Now()
	for n := range supervisedSamples {
		var steps []step
		for _, v := range steadyVariants {
			steps = append(steps, func(ctx context.Context) error { return r.sample(ctx, v) })
		}
		for _, step := range shuffled(seed*supervisedSamples+n, steps...) {
			if err := step(ctx); err != nil {
				return err
			}
		}
	}
	after, err := r.bed.agent.usage()
	if err != nil {
		return err
	}
	r.spent, r.over = after.cpu-before.cpu, time.Since(began)
	held, err := r.bed.supervision(ctx, r.instances[supervised])
	r.refused = int(held.Denied)
	for _, line := range held.Refusals {
		r.bed.bench.say("%s: refused %s (%s, %s): %s", s.name, line.Call, line.Role, line.Phase, line.Why)
	}
	return err
}

func (r *steadyRound) sample(ctx context.Context, v variant) error {
	i := r.instances[v]
	before, err := i.runTime()
	if err != nil {
		return err
	}
	l, err := i.subject.load(ctx, i)
	if err != nil {
		return fmt.Errorf("%s: %w", v, err)
	}
	after, err := i.runTime()
	for _, x := range []struct {
		into  map[variant]series
		value float64
	}{
		{r.into.rate, l.perSecond}, {r.into.p50, l.p50}, {r.into.p99, l.p99}, {r.into.cpu, float64(after-before) / 1000 / float64(l.requests)},
	} {
		x.into[v] = append(x.into[v], sample{x.value, true})
	}
	return err
}

func (b *bench) tabulateSteady(bed *supervisedBed, all map[*subject]steady) {
	t := b.report.table("Supervised services", fmt.Sprintf("Three containers of each service beside each other, without a filter, with the engine's default "+
		"profile and supervised (enforce, in run, the filter of one learned plan), loaded over loopback in turn, in another order each time: %d samples of each in each of "+
		"%d rounds with new containers. redis-benchmark -t set,get -c 50 (%d requests), wrk -t1 -c%d -d1s for a file of nginx's with one worker, pgbench -S -c %d (%d "+
		"transactions, one database in memory). Server and client each on a CPU of its own, at a higher priority than other processes. "+
		"Medians; a ratio is the median of the ratios to the neighbour under the default profile.",
		supervisedSamples, b.rounds(supervisedRounds), 2*redisRequests, wrkConnections, pgClients, pgClients*pgTransactions),
		"service", "variant", "requests/s", "ratio", "p50 ms", "p99 ms", "ratio", "CPU µs/request", "ratio", "bar")
	for _, s := range bed.services() {
		m := all[s]
		for _, v := range steadyVariants {
			cells := []string{s.name, string(v), fmt.Sprintf("%.0f", m.rate[v].median()), "", fmt.Sprintf("%.3f", m.p50[v].median()),
				fmt.Sprintf("%.3f", m.p99[v].median()), "", fmt.Sprintf("%.2f", m.cpu[v].median()), "", ""}
			if v != standard {
				ratio := m.rate[v].ratio(m.rate[standard])
				cells[3] = fmt.Sprintf("%.3f", ratio)
				cells[6] = fmt.Sprintf("%.3f", m.p99[v].ratio(m.p99[standard]))
				cells[8] = fmt.Sprintf("%.3f", m.cpu[v].ratio(m.cpu[standard]))
				if v == supervised {
					cells[9] = bar(ratio >= barSupervised, "throughput at least %.2f of the default profile's", barSupervised)
				}
			}
			t.row(cells...)
		}
	}
	for _, s := range bed.services() {
		v := all[s].rate[standard].values()
		t.note("Under the default profile half of the samples of %s had between %.0f and %.0f requests/s: so much is noise.",
			s.name, quantile(v, 0.25), quantile(v, 0.75))
	}
}

// ratio is the median of the ratios to another series, sample by sample.
func (s series) ratio(to series) float64 {
	var all series
	for i, x := range s {
		all = append(all, sample{x.value / to[i].value, x.clean && to[i].clean})
	}
	return all.median()
}
