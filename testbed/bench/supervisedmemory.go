// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/whittle-sec/whittle/internal/api"
)

const (
	footprintThreads = 2
	footprintSettle  = 13 * time.Second // the agent gives back what starting them took when none has started for ten
	footprintWindow  = 2 * time.Second
	footprintAtOnce  = 4
	barFootprintKB   = 64
)

// footprintSteps of the number of supervised containers.
var footprintSteps = []int{1, 50, 200}

// footprint measures what one agent and its holder need while their supervised containers become more.
func (b *bench) footprint(ctx context.Context) (err error) {
	a, err := startAgent(ctx, b, "--mode", string(api.ModeLearn))
	if err != nil {
		return err
	}
	var running []bundle
	var bs *bundles
	defer func() {
		err = errors.Join(err, each(len(running), func(i int) error { return bs.remove(running[i]) }), a.stop())
	}()
	if bs, err = newBundles(ctx, b, a); err != nil {
		return err
	}
	id, err := bs.learn(ctx, footprintThreads)
	if err != nil {
		return err
	}
	if _, err := a.client.SetMode(ctx, api.ModeChange{Workload: id, Mode: api.ModeEnforce}); err != nil {
		return err
	}
	t := b.report.table("Memory of supervision", "Resident memory of `whittle agent` and of the holder of its listeners, while containers run supervised: bundles of "+
		"one workload, started by runc below `whittle runtime`, that serve and are idle. Medians over 2 s.",
		"containers", "agent", "of it anonymous", "BPF maps (kernel)", "holder", "starting one", "bar")
	var least usage
	for _, n := range footprintSteps {
		began, first := time.Now(), len(running)
		started := make([]bundle, n-first)
		err := each(n-first, func(i int) (err error) {
			started[i], err = bs.start(ctx, fmt.Sprintf("memory-%d", first+i), footprintThreads)
			return err
		})
		for _, x := range started {
			if x.name != "" {
				running = append(running, x)
			}
		}
		if err != nil {
			return err
		}
		took := time.Since(began) / time.Duration(n-first)
		now, holder, err := a.footprint(ctx, n)
		if err != nil {
			return err
		}
		verdict := ""
		if n == 1 {
			least = now
		} else {
			more := float64(now.resident-least.resident) / float64(n-1)
			verdict = fmt.Sprintf("%.0f KB more for each", more)
			if n == footprintSteps[len(footprintSteps)-1] {
				verdict = bar(more <= barFootprintKB, "%s, at most %d", verdict, barFootprintKB)
			}
		}
		t.row(fmt.Sprint(n), mb(float64(now.resident)), mb(float64(now.anonymous)), mb(float64(now.maps)), mb(float64(holder.resident)),
			took.Round(100*time.Microsecond).String(), verdict)
		b.say("footprint: %d containers", n)
	}
	return nil
}

// footprint of the agent and of the holder, once all containers are known to be supervised.
func (a *agentProcess) footprint(ctx context.Context, n int) (agent, holder usage, err error) {
	time.Sleep(footprintSettle)
	status, err := a.client.Status(ctx)
	if err != nil {
		return agent, holder, err
	}
	held := 0
	for _, c := range status.Containers {
		if c.Supervision != nil && c.Supervision.How == "start" && c.Supervision.Listeners > 0 {
			held++
			continue
		}
		text, _ := json.Marshal(c)
		err = errors.Join(err, fmt.Errorf("it does not supervise %s", text))
	}
	if held != n {
		return agent, holder, fmt.Errorf("the agent supervises %d of %d containers: %w", held, n, err)
	}
	var resident, anonymous series
	for began := time.Now(); time.Since(began) < footprintWindow; time.Sleep(200 * time.Millisecond) {
		if agent, err = a.usage(); err != nil {
			return agent, holder, err
		}
		resident = append(resident, sample{float64(agent.resident), true})
		anonymous = append(anonymous, sample{float64(agent.anonymous), true})
	}
	agent.resident, agent.anonymous = int(resident.median()), int(anonymous.median())
	holder, err = usageOf(a.holder())
	return agent, holder, err
}

// each does something n times, some at the same time.
func each(n int, do func(int) error) error {
	var wg sync.WaitGroup
	errs, next := make([]error, n), make(chan int)
	for range footprintAtOnce {
		wg.Go(func() {
			for i := range next {
				errs[i] = do(i)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
	return errors.Join(errs...)
}
