// SPDX-License-Identifier: Apache-2.0

// Evalrenew measures what the clients of a service see while it is renewed: each service runs in a container of a private
// Podman, is loaded with a new connection for each request, and is renewed again and again, by whittle and by `podman restart`.
// It is run by `make eval-renew`, as root, and writes docs/benchmarks-renewal.md. All of it is in a network namespace of its own.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"net"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/whittle-sec/whittle/testbed/document"
)

type options struct {
	only, ways    string
	n, gate, boot int
	restart       int
	tail          time.Duration
	whittle       string
	report        string
}

func main() {
	var o options
	flag.StringVar(&o.only, "only", "nginx,go,redis,postgres", "services, by commas")
	flag.StringVar(&o.ways, "ways", "chosen,podman restart", "ways, by commas: chosen, hold, podman restart")
	flag.IntVar(&o.n, "n", 50, "so many renewals of each service in the host's network")
	flag.IntVar(&o.gate, "gate", 10, "so many renewals of each with a network of its own and a published port")
	flag.IntVar(&o.restart, "restarts", 10, "so many restarts of each")
	flag.IntVar(&o.boot, "boots", 7, "so many starts and stops of each without load, to measure its own times")
	flag.DurationVar(&o.tail, "tail", 700*time.Millisecond, "how long the load goes on before and after each renewal")
	flag.StringVar(&o.whittle, "whittle", "bin/whittle", "the program")
	flag.StringVar(&o.report, "report", "docs/benchmarks-renewal.md", "the document with the report's place; empty for none")
	flag.Parse()
	if err := enterNetwork(); err != nil {
		fmt.Fprintln(os.Stderr, "eval-renew: error:", err)
		os.Exit(1)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "eval-renew: error:", err)
		os.Exit(1)
	}
}

// result of one service renewed in one way.
type result struct {
	service *service
	way     way
	own     own
	rounds  []round
}

func run(ctx context.Context, o options) (err error) {
	for name := range strings.SplitSeq(o.ways, ",") {
		if _, ok := ways[name]; !ok {
			return fmt.Errorf("no way %q", name)
		}
	}
	b, err := newBed(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	began := time.Now()
	var all []result
	for kind := range strings.SplitSeq(o.only, ",") {
		for _, n := range []network{ofHost, ofItsOwn} {
			counts := map[string]int{}
			for name := range strings.SplitSeq(o.ways, ",") {
				counts[name] = o.n
			}
			if _, ok := counts[restart]; ok {
				counts[restart] = o.restart
			}
			if n == ofItsOwn {
				counts = map[string]int{chosen: o.gate}
			}
			results, err := b.measure(ctx, kind, n, counts, o.boot)
			all = append(all, results...)
			if err != nil {
				return fmt.Errorf("%s: %w", kind, err)
			}
		}
	}
	fmt.Printf("took %s\n", time.Since(began).Round(time.Second))
	if o.report == "" {
		return nil
	}
	return document.Write(o.report, "`make eval-renew`", report(all, o, time.Since(began)))
}

// measure a service in a network, so often in each way.
func (b *bed) measure(ctx context.Context, kind string, n network, counts map[string]int, boots int) (all []result, err error) {
	maps.DeleteFunc(counts, func(_ string, n int) bool { return n <= 0 })
	if len(counts) == 0 {
		return nil, nil
	}
	s, err := b.describe(ctx, kind, n)
	if err != nil {
		return nil, err
	}
	if err := b.build(ctx, s); err != nil {
		return nil, err
	}
	if err := b.create(ctx, s, s.name); err != nil {
		return nil, err
	}
	defer func() {
		_, stopped := b.env.Run(context.WithoutCancel(ctx), "stop", "-t", "60", s.name)
		err = errors.Join(err, stopped)
	}()
	if _, err := b.env.Run(ctx, "start", s.name); err != nil {
		return nil, err
	}
	if err := s.answers(ctx, func(net.Conn, *bufio.Reader, int) error { return nil }); err != nil {
		return nil, err
	}
	time.Sleep(300 * time.Millisecond)
	if err := b.seed(ctx, s); err != nil {
		return nil, err
	}
	times, err := b.times(ctx, s, boots)
	if err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		r, err := b.repeat(ctx, s, name, counts[name])
		r.own = times
		all = append(all, r)
		if err != nil {
			return all, err
		}
	}
	return all, nil
}

// repeat the renewal of a service.
func (b *bed) repeat(ctx context.Context, s *service, name string, n int) (r result, err error) {
	w := ways[name]
	r = result{service: s, way: w}
	for i := range n {
		one, err := b.renewOnce(ctx, s, w)
		if err != nil {
			return r, fmt.Errorf("%s, number %d: %w", w.name, i+1, err)
		}
		r.rounds = append(r.rounds, one)
		fmt.Printf("%s, %s, %d of %d: %s\n", s.name, w.name, i+1, n, one.line())
	}
	if s.kept != nil {
		if err := s.kept(ctx); err != nil {
			return r, fmt.Errorf("%s: data is lost: %w", w.name, err)
		}
	}
	return r, nil
}
