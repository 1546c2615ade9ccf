// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/whittle-sec/whittle/internal/kernel"
)

const (
	redisRounds   = 3
	redisPairs    = 5      // of samples of the default and the learned profile, a round
	redisRequests = 10_000 // of SET, and of GET, a sample
	barEnforced   = 0.98
	// observedSamples are taken each time that something is attached.
	observedSamples = 3
)

// served is what one run of redis-benchmark says.
type served struct {
	perSecond float64 // SET and GET, one after the other
	cpu       float64 // of the server's main thread, in ns a request
}

// redis measures a real service. Each round starts new containers, since where a program happens to lie in memory makes as much
// of a difference as what is measured.
func (b *bench) redis(ctx context.Context) (err error) {
	bed, err := newRedisBed(ctx, b)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bed.close()) }()
	o, stop, err := observer(ctx)
	if err != nil {
		return err
	}
	defer func() { stop() }()
	m := &redisRuns{bed: bed, observer: o, rate: map[string]series{}, cpu: map[string]series{}, patience: 20 * time.Second}
	for i := range redisRounds {
		if err := m.round(ctx, uint64(i)); err != nil {
			return err
		}
		b.say("redis: round %d of %d", i+1, redisRounds)
	}
	m.tabulate(&b.report)
	return nil
}

type redisRuns struct {
	bed       *redisBed
	observer  *kernel.Observer
	rate, cpu map[string]series
	patience  time.Duration
}

func (m *redisRuns) round(ctx context.Context, seed uint64) (err error) {
	usual, err := m.bed.start(ctx, "")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.bed.remove(usual)) }()
	enforced, err := m.bed.start(ctx, m.bed.profile)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.bed.remove(enforced)) }()
	for _, r := range []*redisServer{usual, enforced} { // the first requests fault its pages in
		if _, err := r.load(ctx, redisRequests/2); err != nil {
			return err
		}
	}
	steps := []func() error{
		func() error { return m.observed(ctx, "observed", usual, false) },
		func() error { return m.observed(ctx, "observed, feed", usual, true) },
		func() error { return m.watched(ctx, enforced) },
	}
	// Short samples that take turns: what disturbs the machine for seconds disturbs both alike.
	for i := range redisPairs {
		first, second := func() error { return m.sample(ctx, "default", usual, 0) },
			func() error { return m.sample(ctx, "enforced", enforced, 0) }
		if i%2 == 1 {
			first, second = second, first
		}
		steps = append(steps, func() error { return cmp.Or(first(), second()) })
	}
	rand.New(rand.NewPCG(seed, 1)).Shuffle(len(steps), func(i, j int) { steps[i], steps[j] = steps[j], steps[i] })
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func (m *redisRuns) sample(ctx context.Context, name string, r *redisServer, ours int) error {
	c := calls{patience: m.patience}
	if err := c.quiet(ctx, ours); err != nil {
		return err
	}
	m.patience = c.patience
	before, err := tracers()
	if err != nil {
		return err
	}
	s, err := r.load(ctx, redisRequests)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	after, err := tracers()
	clean := before == ours && after == ours
	m.rate[name] = append(m.rate[name], sample{s.perSecond, clean})
	m.cpu[name] = append(m.cpu[name], sample{s.cpu, clean})
	return err
}

// observed as the agent does it to a container that was already running.
func (m *redisRuns) observed(ctx context.Context, name string, r *redisServer, feed bool) error {
	id, err := m.observer.Observe(kernel.Target{CgroupID: r.cgroup, MountNS: r.mountNS, InitPID: r.pid, Late: true, Filtered: feed})
	if err != nil {
		return err
	}
	if _, err = r.load(ctx, redisRequests/10); err == nil { // it accepts: its boot is over
		ours := 2
		if !feed {
			ours, err = 1, onlyEnter(ctx, m.observer)
		}
		for range observedSamples {
			if err == nil {
				err = m.sample(ctx, name, r, ours)
			}
		}
	}
	trace, finish := m.observer.Finish(id, false)
	if err == nil && finish == nil && len(trace.Cells) == 0 {
		err = errors.New("nothing of redis was observed")
	}
	return errors.Join(err, finish)
}

func (m *redisRuns) watched(ctx context.Context, r *redisServer) error {
	id, err := m.observer.Watch(kernel.Target{CgroupID: r.cgroup, MountNS: r.mountNS, InitPID: r.pid, Late: true}, m.bed.allowed)
	if err != nil {
		return err
	}
	for range observedSamples {
		err = cmp.Or(err, m.sample(ctx, "enforced, feed", r, 1))
	}
	trace, finish := m.observer.Finish(id, false)
	for _, d := range trace.Denied {
		err = errors.Join(err, fmt.Errorf("the profile refuses %s, which redis needs", d.Call))
	}
	return errors.Join(err, finish)
}

// load the server with requests, one at a time from each of 50 connections.
func (r *redisServer) load(ctx context.Context, requests int) (s served, err error) {
	before, err := r.runTime()
	if err != nil {
		return s, err
	}
	cmd := exec.CommandContext(ctx, "sh", "-c", favoured, "redis-benchmark", "-h", "127.0.0.1", "-p", strconv.Itoa(r.port), "-t", "set,get",
		"-n", strconv.Itoa(requests), "-c", "50", "-P", "1", "--csv")
	var out, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Run(); err != nil {
		return s, fmt.Errorf("redis-benchmark: %w: %s", err, stderr.String())
	}
	after, err := r.runTime()
	if err != nil {
		return s, err
	}
	records, err := csv.NewReader(strings.NewReader(out.String())).ReadAll()
	if err != nil {
		return s, fmt.Errorf("read what redis-benchmark says: %w", err)
	}
	var tests, inverse float64
	for _, record := range records {
		if len(record) < 2 || record[0] != "SET" && record[0] != "GET" {
			continue
		}
		rate, err := strconv.ParseFloat(record[1], 64)
		if err != nil || rate <= 0 {
			return s, fmt.Errorf("read what redis-benchmark says: %q", record[1])
		}
		tests, inverse = tests+1, inverse+1/rate
	}
	if tests != 2 {
		return s, fmt.Errorf("read what redis-benchmark says: %d tests", int(tests))
	}
	return served{tests / inverse, float64(after-before) / float64(2*requests)}, nil
}

func (m *redisRuns) tabulate(r *report) {
	t := r.table("Redis", fmt.Sprintf("redis-benchmark -t set,get -c 50 -P 1 over loopback against Redis in a container of podman with the "+
		"engine's default profile, and with the profile that Whittle learned from it. Medians of samples of %d requests, of which each of %d rounds takes %d of either profile in "+
		"turn and %d of each other variant; new containers in each round; server and client each on a CPU of its own, at a higher "+
		"priority than other processes. The server's CPU time for one request is steadier than the throughput on a busy machine.",
		2*redisRequests, redisRounds, redisPairs, observedSamples),
		"variant", "requests/s", "ratio", "CPU µs/request", "ratio", "bar")
	for _, row := range []struct{ label, name, base string }{
		{"default profile", "default", ""},
		{"the same, observed", "observed", "default"},
		{"the same, observed, with the feed of denials", "observed, feed", "default"},
		{"learned profile (enforced)", "enforced", "default"},
		{"the same, denials reported", "enforced, feed", "default"},
	} {
		rate, cpu := m.rate[row.name], m.cpu[row.name]
		cells := []string{row.label, fmt.Sprintf("%.0f", rate.median()), "", fmt.Sprintf("%.2f", cpu.median()/1000), "", ""}
		if row.base != "" {
			ratio := rate.median() / m.rate[row.base].median()
			cells[2] = fmt.Sprintf("%.3f", ratio)
			cells[4] = fmt.Sprintf("%.3f", cpu.median()/m.cpu[row.base].median())
			if row.name == "enforced" {
				cells[5] = bar(ratio >= barEnforced, "throughput at least %.2f", barEnforced)
			}
		}
		t.row(cells...)
		if n, clean := rate.usable(); !clean {
			t.note("Another tracer was attached on this host during most of the %d samples of %q.", n, row.label)
		}
	}
	t.note("Under the default profile half of the samples had between %.0f and %.0f requests/s: so much is noise.",
		quantile(m.rate["default"].values(), 0.25), quantile(m.rate["default"].values(), 0.75))
}
