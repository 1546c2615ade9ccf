// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/whittle-sec/whittle/internal/api"
)

// serveFor is how long the services are under load and under enforcement before they are attacked.
const serveFor = 8 * time.Second

// attach to a Redis that was started without Whittle and serves.
func (d *demo) attach(ctx context.Context) error {
	d.say("A Redis that nobody announced runs already and serves: it gets the filter while it does")
	redis := d.services[0]
	if err := d.start(ctx, redis, "old", false); err != nil {
		return err
	}
	redis.startLoad(ctx)
	err := until(ctx, 20*time.Second, "the agent has found the container through Podman's socket", func() bool {
		s, err := d.client.Status(ctx)
		_, found := containerOf(s, "old")
		return err == nil && found
	})
	if err != nil {
		return err
	}
	pid, err := d.pidOf(ctx, "old")
	if err != nil {
		return err
	}
	if err := d.show(ctx, "attach", "old", "--mode", "enforce"); err != nil {
		return err
	}
	if err := sleep(ctx, 3*time.Second); err != nil {
		return err
	}
	fmt.Fprintln(d.out, "What the running server itself can still call (a debugger makes it; an intruder's code would):")
	if err := d.probe([]target{{"now", pid}}); err != nil {
		return err
	}
	redis.stopLoad()
	n, err := redis.load.count()
	if err != nil || n == 0 {
		return fmt.Errorf("the load during the attach: %d requests: %w", n, err)
	}
	fmt.Fprintf(d.out, "redis-benchmark meanwhile: %d requests, no error\n", n)
	return d.remove(ctx, "old")
}

// enforce what was learned, from the start of the containers on.
func (d *demo) enforce(ctx context.Context) error {
	d.say("All three again, with load from the first moment, and enforced")
	began := time.Now()
	for _, s := range d.services {
		if _, err := d.cli(ctx, "policy", "mode", s.name, "enforce", "--why", "the demo"); err != nil {
			return err
		}
		fmt.Fprintf(d.out, "$ whittle policy mode %s enforce\n$ podman run … %s\n", s.name, s.image())
		if err := d.start(ctx, s, s.name, true); err != nil {
			return err
		}
		s.startLoad(ctx)
	}
	err := until(ctx, 40*time.Second, "all three have booted", func() bool {
		done := 0
		for _, s := range d.services {
			booted, err := d.events(ctx, "phase", s.name+": boot -> run: ")
			if err == nil && len(booted) > 0 {
				done++
			}
		}
		return done == len(d.services)
	})
	if err != nil {
		return err
	}
	if err := sleep(ctx, serveFor/2); err != nil {
		return err
	}
	if _, err := d.podman(ctx, "exec", "nginx", "nginx", "-s", "reload"); err != nil {
		return err
	}
	if err := sleep(ctx, serveFor/2); err != nil {
		return err
	}
	phases, err := d.events(ctx, "phase", "")
	if err != nil {
		return err
	}
	phases = slices.DeleteFunc(phases, func(e api.Event) bool { return e.Time.Before(began) })
	if err := d.show(ctx, "event", "list", "--kind", "phase", "--limit", strconv.Itoa(len(phases))); err != nil {
		return err
	}
	if !slices.ContainsFunc(phases, func(e api.Event) bool { return strings.HasPrefix(e.Text, "nginx: run -> reload") }) {
		return errors.New("nginx was reloaded, and its phase is not")
	}
	if err := d.show(ctx, "status"); err != nil {
		return err
	}
	refused, err := d.events(ctx, "refused", "")
	if err != nil {
		return err
	}
	refused = slices.DeleteFunc(refused, func(e api.Event) bool { return e.Time.Before(began) })
	if len(refused) > 0 {
		return fmt.Errorf("the services were refused %d calls: %v", len(refused), slices.Collect(texts(refused)))
	}
	for _, s := range d.services {
		n, err := s.load.count()
		if err != nil || n == 0 {
			return fmt.Errorf("the load on %s under enforcement: %d requests: %w", s.name, n, err)
		}
		fmt.Fprintf(d.out, "%s has answered %d requests under enforcement; errors: none; refused: nothing\n", s.name, n)
	}
	return nil
}

// events of a kind whose text begins so.
func (d *demo) events(ctx context.Context, kind, begin string) ([]api.Event, error) {
	all, err := d.client.Events(ctx, api.EventQuery{Kind: kind, Limit: 1000})
	return slices.DeleteFunc(all, func(e api.Event) bool { return !strings.HasPrefix(e.Text, begin) }), err
}

// end stops the services under enforcement, and looks at their data with the next ones.
func (d *demo) end(ctx context.Context) error {
	d.say("The stop signal, while enforced, and a look at the data afterwards")
	redis, postgres := d.services[0], d.services[2]
	if err := d.endLoad(); err != nil {
		return err
	}
	if _, err := redis.cli(ctx, "set", "last", "words"); err != nil {
		return err
	}
	read := func() (text string, err error) {
		keys, err := redis.cli(ctx, "dbsize")
		if err != nil {
			return "", err
		}
		last, err := redis.cli(ctx, "get", "last")
		if err != nil {
			return "", err
		}
		rows, err := postgres.psql(ctx, "select count(*) from pgbench_history")
		return fmt.Sprintf("redis has %s keys and %q, postgres %s transactions", keys, last, rows), err
	}
	before, err := read()
	if err != nil {
		return err
	}
	fmt.Fprintf(d.out, "before:    %s\n$ podman stop redis nginx postgres\n", before)
	for _, s := range d.services {
		if err := d.remove(ctx, s.name); err != nil {
			return err
		}
	}
	fmt.Fprintln(d.out, "each ended with status 0\n$ podman run …")
	for _, s := range []*service{redis, postgres} {
		if err := d.start(ctx, s, s.name, true); err != nil {
			return err
		}
	}
	after, err := read()
	if err != nil {
		return err
	}
	fmt.Fprintf(d.out, "restarted: %s\n", after)
	if before != after {
		return errors.New("data was lost")
	}
	problems, err := d.client.Events(ctx, api.EventQuery{Kind: "problem", Limit: 100})
	if err != nil || len(problems) > 0 {
		return fmt.Errorf("the agent had problems: %v: %w", slices.Collect(texts(problems)), err)
	}
	return nil
}

func texts(events []api.Event) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, e := range events {
			if !yield(e.Text) {
				return
			}
		}
	}
}
