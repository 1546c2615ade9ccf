// SPDX-License-Identifier: Apache-2.0

// Evalrenew measures what the clients of a service see while it is renewed: each service runs in a container of a private
// Podman, is loaded with a new connection for each request, and is renewed again and again, by whittle and by `podman restart`.
// It is run by `make eval-renew`, as root, and writes docs/benchmarks-renewal.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

type options struct {
	only, ways string
	n, restart int
	whittle    string
	report     string
}

func main() {
	var o options
	flag.StringVar(&o.only, "only", "nginx,go,redis,postgres", "services, by commas")
	flag.StringVar(&o.ways, "ways", "chosen,podman restart", "ways, by commas: chosen, hold, podman restart")
	flag.IntVar(&o.n, "n", 50, "so many renewals of each service")
	flag.IntVar(&o.restart, "restarts", 10, "so many restarts of each")
	flag.StringVar(&o.whittle, "whittle", "bin/whittle", "the program")
	flag.StringVar(&o.report, "report", "docs/benchmarks-renewal.md", "the report; empty for none")
	flag.Parse()
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
	boots   []time.Duration
	rounds  []round
}

func run(ctx context.Context, o options) (err error) {
	b, err := newBed(ctx, o.whittle)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	services, err := b.describe(ctx, strings.Split(o.only, ","))
	if err != nil {
		return err
	}
	var all []result
	for _, s := range services {
		results, err := b.measure(ctx, s, o)
		all = append(all, results...)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	if o.report == "" {
		return nil
	}
	return os.WriteFile(o.report, []byte(report(all)), 0o644)
}

// measure a service in every way.
func (b *bed) measure(ctx context.Context, s *service, o options) (all []result, err error) {
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
	if err := s.answers(ctx, patience, func(net.Conn, int) error { return nil }); err != nil {
		return nil, err
	}
	time.Sleep(300 * time.Millisecond)
	if err := b.seed(ctx, s); err != nil {
		return nil, err
	}
	boots, err := b.boot(ctx, s, 9)
	if err != nil {
		return nil, err
	}
	for name := range strings.SplitSeq(o.ways, ",") {
		w, ok := ways[name]
		if !ok {
			return nil, fmt.Errorf("no way %q", name)
		}
		n := o.n
		if name == "podman restart" {
			n = o.restart
		}
		r := result{service: s, way: w, boots: boots}
		for i := range n {
			one, err := b.renewOnce(ctx, s, w)
			if err != nil {
				return append(all, r), fmt.Errorf("%s, number %d: %w", w.name, i+1, err)
			}
			r.rounds = append(r.rounds, one)
			fmt.Printf("%s, %s, %d of %d: %s\n", s.name, w.name, i+1, n, one.line())
		}
		all = append(all, r)
		if s.kept != nil {
			if err := s.kept(ctx); err != nil {
				return all, fmt.Errorf("%s: data is lost: %w", w.name, err)
			}
		}
	}
	return all, nil
}
