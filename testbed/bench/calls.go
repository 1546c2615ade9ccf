// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os/exec"
	"slices"
	"time"

	"github.com/whittle-sec/whittle/internal/kernel"
)

const (
	// What the bars are about is measured in each round, one after the other, so that the differences are between
	// neighbours; the rest in every fourth.
	callRounds = 10
	allEvery   = 4
	manyIDs    = 10_000
)

// calls measures what one system call costs under each variant.
type calls struct {
	b        *bench
	inside   *group
	costs    map[string]series
	patience time.Duration // left to wait for other tracers to go
}

var (
	// Many short repetitions: the least is of a moment in which nobody else used the core or its cache.
	plain   = loopPlan{Rounds: 60, Calls: 5_000}
	request = loopPlan{Rounds: 60, Calls: 3_000, Request: true}
)

// calls is the section. All variants are measured in each round, so that a machine that changes its speed changes them all.
func (b *bench) calls(ctx context.Context) error {
	inside, err := b.groups.make("observed")
	if err != nil {
		return err
	}
	defer inside.close()
	c := &calls{b: b, inside: inside, costs: map[string]series{}, patience: 30 * time.Second}
	for i := range callRounds {
		// In another order each time: what heats up or cools down does it to all of them.
		steps := shuffled(i, c.bare, c.empty, c.observed)
		if i%allEvery == 0 {
			steps = append(steps, shuffled(i, c.feed, c.watched, c.many, c.bpftrace, c.strace)...)
		}
		for _, step := range steps {
			if err := step(ctx); err != nil {
				return err
			}
		}
		b.say("calls: round %d of %d", i+1, callRounds)
	}
	c.tabulate(&b.report)
	return nil
}

type step = func(context.Context) error

func shuffled(seed int, steps ...step) []step {
	rand.New(rand.NewPCG(uint64(seed), 0)).Shuffle(len(steps), func(i, j int) { steps[i], steps[j] = steps[j], steps[i] })
	return steps
}

// both loops, as samples name and "name, requests".
func (c *calls) both(ctx context.Context, name string, ours int, p probe) error {
	p.plan = with(plain, p.plan.Accept)
	if err := c.sample(ctx, name, ours, p); err != nil {
		return err
	}
	p.plan = with(request, p.plan.Accept)
	return c.sample(ctx, name+ofRequests, ours, p)
}

const ofRequests = ", requests"

func with(plan loopPlan, accept bool) loopPlan {
	plan.Accept = accept
	return plan
}

func (c *calls) bare(ctx context.Context) error { return c.both(ctx, "nothing", 0, probe{}) }

func (c *calls) empty(ctx context.Context) error {
	enter, err := attachEmpty("sys_enter")
	if err != nil {
		return err
	}
	defer enter.Close()
	if err := c.both(ctx, "empty", 1, probe{}); err != nil {
		return err
	}
	exit, err := attachEmpty("sys_exit")
	if err != nil {
		return err
	}
	defer exit.Close()
	return c.both(ctx, "empty both", 2, probe{})
}

// observer that runs until the function it returns is called.
func observer(ctx context.Context) (*kernel.Observer, func() error, error) {
	o, err := kernel.Open(slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan error, 1)
	go func() { done <- o.Run(ctx) }()
	return o, func() error {
		cancel()
		if err := <-done; err != nil {
			o.Close()
			return err
		}
		return o.Close()
	}, nil
}

// onlyEnter waits until the feed of denials is detached, which the observer does once a second when nobody needs it.
func onlyEnter(ctx context.Context, o *kernel.Observer) error {
	for range 500 {
		if !slices.Contains(o.Attached(), "sys_exit") {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
	return fmt.Errorf("the feed of denials stays attached: %v", o.Attached())
}

// observed is the steady state: a container without a filter that has booted.
func (c *calls) observed(ctx context.Context) (err error) {
	o, stop, err := observer(ctx)
	if err != nil {
		return err
	}
	closed := false
	defer func() {
		if !closed {
			stop()
		}
	}()
	id, err := o.Observe(kernel.Target{CgroupID: c.inside.id})
	if err != nil {
		return err
	}
	settled := func(ctx context.Context) error {
		if err := onlyEnter(ctx, o); err != nil {
			return err
		}
		return c.quiet(ctx, 1)
	}
	in := probe{in: c.inside, plan: loopPlan{Accept: true}, ready: settled}
	if err := c.both(ctx, "observed", 1, in); err != nil {
		return err
	}
	if err := c.both(ctx, "unobserved", 1, probe{}); err != nil {
		return err
	}
	if _, err := o.Finish(id, true); err != nil {
		return err
	}
	if err := c.both(ctx, "detached", 0, probe{}); err != nil {
		return err
	}
	closed = true
	return stop()
}

// feed is the same with the feed of denials, as while booting or under an engine's profile.
func (c *calls) feed(ctx context.Context) (err error) {
	o, stop, err := observer(ctx)
	if err != nil {
		return err
	}
	defer func() { stop() }()
	if _, err := o.Observe(kernel.Target{CgroupID: c.inside.id, Filtered: true}); err != nil {
		return err
	}
	if err := c.both(ctx, "observed, feed", 2, probe{in: c.inside}); err != nil {
		return err
	}
	return c.both(ctx, "unobserved, feed", 2, probe{})
}

// watched is what a container under a filter of Whittle's costs while its denials are reported.
func (c *calls) watched(ctx context.Context) (err error) {
	o, stop, err := observer(ctx)
	if err != nil {
		return err
	}
	defer func() { stop() }()
	if _, err := o.Watch(kernel.Target{CgroupID: c.inside.id}, kernel.Allowed{}); err != nil {
		return err
	}
	if err := c.both(ctx, "watched", 1, probe{in: c.inside}); err != nil {
		return err
	}
	return c.both(ctx, "unwatched", 1, probe{})
}

// many containers in the table, all but one of which do not exist: only their number matters to a look-up.
func (c *calls) many(ctx context.Context) (err error) {
	o, stop, err := observer(ctx)
	if err != nil {
		return err
	}
	defer func() { stop() }()
	if _, err := o.Observe(kernel.Target{CgroupID: c.inside.id, Filtered: true}); err != nil {
		return err
	}
	random := rand.New(rand.NewPCG(1, 2))
	for n := 1; n < manyIDs; n++ {
		if _, err := o.Observe(kernel.Target{CgroupID: 1<<40 + random.Uint64N(1<<30), Filtered: true}); err != nil {
			return fmt.Errorf("observe container %d: %w", n, err)
		}
	}
	if err := c.both(ctx, "observed, 10,000", 2, probe{in: c.inside}); err != nil {
		return err
	}
	return c.both(ctx, "unobserved, 10,000", 2, probe{})
}

func (c *calls) strace(ctx context.Context) error {
	tracer, err := exec.LookPath("strace")
	if err != nil {
		return nil // the table says so
	}
	p := probe{wrap: []string{tracer, "-f", "-c", "-o", "/dev/null"}, plan: loopPlan{Rounds: 2, Calls: 5000}}
	return c.sample(ctx, "strace", 0, p)
}
