// SPDX-License-Identifier: Apache-2.0

// Evalloops measures time loops: services that were never learned from start under an empty policy, are asked, attacked and
// asked again, with no operator; and what they serve afterwards is compared with what they serve unprotected, with what their
// hardened twins serve, and with what they serve when they were renewed for the calls that turned out to be frequent. It is run by
// `make eval-loops`, as root, and writes docs/benchmarks-loops.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/whittle-sec/whittle/testbed/document"
	"github.com/whittle-sec/whittle/testbed/twins"
)

type options struct {
	only     string
	whittle  string
	report   string
	cache    string
	settle   time.Duration
	patience time.Duration
	rounds   int
	round    time.Duration
	watch    time.Duration
}

func main() {
	var o options
	flag.StringVar(&o.only, "only", "vulnd,memcached,flask", "services, by commas")
	flag.StringVar(&o.whittle, "whittle", "bin/whittle", "the program")
	flag.StringVar(&o.report, "report", "docs/benchmarks-loops.md", "the document with the report's place; empty for none")
	flag.StringVar(&o.cache, "cache", ".cache/twins", "where what is built is kept")
	flag.DurationVar(&o.settle, "settle", 30*time.Second, "without a loop, after which a service has converged")
	flag.DurationVar(&o.patience, "patience", 80*time.Second, "with each exploit, that there be a loop")
	flag.IntVar(&o.rounds, "rounds", 7, "of throughput, for each of the three")
	flag.DurationVar(&o.round, "round", 3*time.Second, "of throughput")
	flag.DurationVar(&o.watch, "watch", 25*time.Second, "under load, after which the agent knows what is frequent")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "eval-loops: error:", err)
		os.Exit(1)
	}
}

var makers = map[string]func(context.Context, string) (twins.Twin, error){
	"vulnd": twins.Vulnd, "memcached": twins.Memcached, "flask": twins.Flask, "php": twins.PHP,
}

func run(ctx context.Context, o options) (err error) {
	cache, err := filepath.Abs(o.cache)
	if err != nil {
		return err
	}
	began := time.Now()
	var all []*trial
	for name := range strings.SplitSeq(o.only, ",") {
		make, ok := makers[name]
		if !ok {
			return fmt.Errorf("no service %q", name)
		}
		twin, err := make(ctx, cache)
		if err != nil {
			return fmt.Errorf("build %s: %w", name, err)
		}
		t := &trial{options: o, twin: twin}
		all = append(all, t)
		if err := t.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	fmt.Printf("took %s\n", time.Since(began).Round(time.Second))
	if o.report == "" {
		return nil
	}
	return document.Write(o.report, "`make eval-loops`", report(all, o, time.Since(began)))
}

// run a trial in a bed of its own.
func (t *trial) run(ctx context.Context) (err error) {
	if t.bed, err = newBed(ctx, t.whittle); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.bed.close()) }()
	for _, step := range []func(context.Context) error{t.prepare, t.converge, t.attackFirst, t.compare, t.attackAgain} {
		if err := step(ctx); err != nil {
			return errors.Join(err, t.bed.explain())
		}
	}
	return nil
}
