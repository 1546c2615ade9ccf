// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"slices"
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
	before, err := reached(pid)
	if err != nil {
		return err
	}
	if !before["execve"] || !before["bind"] {
		return fmt.Errorf("without a filter of Whittle's execve and bind do not come through: %v", before)
	}
	if err := d.show(ctx, "attach", "old", "--mode", "enforce"); err != nil {
		return err
	}
	if err := sleep(ctx, 3*time.Second); err != nil {
		return err
	}
	fmt.Fprintln(d.out, "What the running server itself can still call (a debugger makes it; an intruder's code would):")
	after, err := d.probe([]target{{"now", pid}})
	if err != nil {
		return err
	}
	if after[0]["execve"] || after[0]["bind"] {
		return fmt.Errorf("attached, and execve or bind come through: %v", after)
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
		s, err := d.client.Status(ctx)
		for _, service := range d.services {
			c, ok := containerOf(s, service.name)
			if err != nil || !ok || c.Supervision == nil || c.Supervision.Phase.String() != "run" {
				return false
			}
		}
		return true
	})
	if err != nil {
		return err
	}
	if err := d.show(ctx, "event", "list", "--kind", "phase"); err != nil {
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
	if err := d.show(ctx, "status"); err != nil {
		return err
	}
	for _, s := range d.services {
		n, err := s.load.count()
		if err != nil || n == 0 {
			return fmt.Errorf("the load on %s under enforcement: %d requests: %w", s.name, n, err)
		}
		fmt.Fprintf(d.out, "%s has answered %d requests under enforcement, with no error\n", s.name, n)
	}
	return nil
}

// refused are the events of refused calls.
func (d *demo) refused(ctx context.Context, container string) (events []api.Event, err error) {
	all, err := d.client.Events(ctx, api.EventQuery{Kind: "refused", Limit: 1000})
	for _, e := range all {
		if strings.HasPrefix(e.Text, container+":") {
			events = append(events, e)
		}
	}
	return events, err
}

// end stops the services under enforcement, and looks at their data with the next ones.
func (d *demo) end(ctx context.Context) error {
	d.say("SIGTERM, while enforced, and a look at the data afterwards")
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
		return fmt.Errorf("data was lost")
	}
	problems, err := d.client.Events(ctx, api.EventQuery{Kind: "problem", Limit: 100})
	if err != nil || len(problems) > 0 {
		return fmt.Errorf("the agent had problems: %v: %w", slices.Collect(texts(problems)), err)
	}
	return nil
}

func texts(events []api.Event) func(func(string) bool) {
	return func(yield func(string) bool) {
		for _, e := range events {
			if !yield(e.Text) {
				return
			}
		}
	}
}
