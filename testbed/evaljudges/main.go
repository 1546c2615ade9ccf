// SPDX-License-Identifier: Apache-2.0

// Evaljudges evaluates the panel of judges with real services: each is learned from without its rare operations, enforced, and
// then has these done to it; and an intruder inside it tries what intruders try. It is run by `make eval-judges`, as root, and
// writes docs/judges.md. It installs the services' packages; nothing of them is started on the host.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/whittle-sec/whittle/testbed/services"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "eval-judges: error:", err)
		os.Exit(1)
	}
}

// options of a run.
type options struct {
	only, ops, attacks string
	whittle            string
	dir                string // of the results
	report             string
	parallel           int
	together, again    bool
	noOps, noAttacks   bool
	noLatency          bool
}

func flags() (o options) {
	flag.StringVar(&o.only, "only", "", "names of services, by commas; what the results have of others is kept")
	flag.StringVar(&o.ops, "ops", "", "only the operations with these names, by commas")
	flag.StringVar(&o.attacks, "attacks", "", "only the attacks with these words in their names, by commas")
	flag.StringVar(&o.whittle, "whittle", "bin/whittle", "the program")
	flag.StringVar(&o.dir, "dir", ".cache/eval-judges", "where the results are kept: results.json, and cases.json for whittle judge replay")
	flag.StringVar(&o.report, "report", "docs/judges.md", "the report; empty for none")
	flag.IntVar(&o.parallel, "parallel", 2, "so many services at once")
	flag.BoolVar(&o.together, "together", false, "all operations of a service in one container, one after another: faster, and what one taught the policy helps the next")
	flag.BoolVar(&o.again, "again", false, "measure the latency and write the report, from the results there are")
	flag.BoolVar(&o.noOps, "no-operations", false, "no rare operations")
	flag.BoolVar(&o.noAttacks, "no-attacks", false, "no attacks")
	flag.BoolVar(&o.noLatency, "no-latency", false, "do not measure how long a verdict takes")
	flag.Parse()
	return o
}

func run(ctx context.Context) error {
	o := flags()
	if o.again {
		return again(ctx, o)
	}
	chosen, err := choose(o.only)
	if err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return errors.New("it needs root: sudo make eval-judges")
	}
	if o.whittle, err = filepath.Abs(o.whittle); err != nil {
		return err
	}
	if err := services.Install(ctx, os.Stderr, chosen...); err != nil {
		return err
	}
	rs, err := keep(o)
	if err != nil {
		return err
	}
	evaluate(ctx, o, chosen, rs)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if !o.noLatency {
		l, err := measureLatency(ctx)
		if err != nil {
			say("latency: %v", err)
		} else {
			rs.Latency = l
		}
	}
	rs.note(ctx, o)
	if err := rs.write(o.dir); err != nil {
		return err
	}
	return writeReport(o.report, rs)
}

// again writes the report; the latency is measured again, too, unless it shall not be.
func again(ctx context.Context, o options) error {
	rs, err := readResults(o.dir)
	if err != nil {
		return err
	}
	if !o.noLatency {
		if rs.Latency, err = measureLatency(ctx); err != nil {
			return err
		}
		if err := rs.write(o.dir); err != nil {
			return err
		}
	}
	return writeReport(o.report, rs)
}

// evaluate services, a few at a time. What fails of one is in its result, and the others go on.
func evaluate(ctx context.Context, o options, chosen []services.Service, rs *results) {
	var mu sync.Mutex
	var group sync.WaitGroup
	slots := make(chan struct{}, max(1, o.parallel))
	for _, s := range chosen {
		slots <- struct{}{}
		if ctx.Err() != nil {
			break
		}
		group.Go(func() {
			defer func() { <-slots }()
			r := evaluateService(ctx, o, s)
			if ctx.Err() != nil {
				return // what was cut off is no result
			}
			mu.Lock()
			defer mu.Unlock()
			rs.put(r, o)
			if err := rs.write(o.dir); err != nil { // so that an interrupted run is not for nothing
				say("%v", err)
			}
		})
	}
	group.Wait()
}

func choose(only string) (out []services.Service, err error) {
	if only == "" {
		return append(services.All(), victims()...), nil
	}
	for name := range strings.SplitSeq(only, ",") {
		s, ok := services.Find(name)
		for _, v := range victims() {
			if v.Name == name {
				s, ok = v, true
			}
		}
		if !ok {
			return nil, fmt.Errorf("there is no service %s", name)
		}
		out = append(out, s)
	}
	return out, nil
}

// named tells whether a list by commas, empty for all, has a name.
func named(list, name string) bool {
	return list == "" || slices.Contains(strings.Split(list, ","), name)
}

func say(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
