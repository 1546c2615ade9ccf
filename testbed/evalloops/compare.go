// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/testbed/load"
	"github.com/whittle-sec/whittle/testbed/twins"
)

// kind of instance whose throughput is measured.
type kind int

const (
	unprotected kind = iota
	whittled
	hardened
	kinds
)

// instance of a service. All of them run, and one is asked.
type instance struct {
	kind  kind
	name  string // of its container
	image twins.Image
	port  int
}

// rates are requests a second, of each round.
type rates [kinds][]float64

// throughput of a service.
type throughput struct {
	converged rates
	hot       []string // what the agent says of calls that are held too often
	renewed   rates    // after the renewal that it asks for; empty when nothing was hot
}

// booted is how long an instance is left alone after its first answer: booting, as far as calls are asked for, has ended then.
const booted = 3 * time.Second

// instances in the order in which they are asked.
func (t *trial) instances() []instance {
	all := []instance{
		{unprotected, t.twin.Name + "-unprotected", t.twin.Production, unprotectedPort},
		{whittled, t.twin.Name, t.twin.Production, port},
	}
	if t.twin.Oracle.Name != t.twin.Production.Name { // where its start hardens it, there is none that always is
		all = append(all, instance{hardened, t.twin.Name + "-hardened", t.twin.Oracle, hardenedPort})
	}
	return all
}

// compare what is served in a second: unprotected, after convergence, and always hardened. Then the service is kept busy until the
// agent knows what is frequent, is renewed if it says so, and compared once more.
func (t *trial) compare(ctx context.Context) (err error) {
	all := t.instances()
	for _, i := range all {
		if i.kind == whittled {
			continue
		}
		if err := t.create(ctx, t.bed.plain, i.name, i.image, i.port); err != nil {
			return err
		}
		defer func() {
			_, removed := t.bed.plain.Run(context.WithoutCancel(ctx), "rm", "--force", "--time", "10", i.name)
			err = errors.Join(err, removed)
		}()
		_, err := t.bed.plain.Run(ctx, "start", i.name)
		if err == nil {
			err = until(ctx, time.Minute, i.name+" answers", func() bool { return t.answers(ctx, i.port) })
		}
		if err != nil {
			return err
		}
	}
	if err := sleep(ctx, booted); err != nil {
		return err
	}
	if t.served.converged, err = t.inTurns(ctx, all); err != nil {
		return err
	}
	if err := t.learnHot(ctx); err != nil || len(t.served.hot) == 0 {
		return err
	}
	if err := t.renew(ctx); err != nil {
		return err
	}
	t.served.renewed, err = t.inTurns(ctx, all)
	return err
}

// inTurns, because machines vary.
func (t *trial) inTurns(ctx context.Context, all []instance) (r rates, err error) {
	for range t.rounds {
		for _, i := range all {
			stats, err := t.busy(ctx, i.port, t.round)
			if err != nil {
				return r, fmt.Errorf("%s: %w", i.name, err)
			}
			r[i.kind] = append(r[i.kind], stats.PerSecond())
		}
	}
	fmt.Printf("%s: unprotected %.0f, under whittle %.0f, hardened %.0f requests/s\n", t.twin.Name, median(r[unprotected]), median(r[whittled]), median(r[hardened]))
	return r, nil
}

// busy keeps what listens there busy for a while.
func (t *trial) busy(ctx context.Context, port int, long time.Duration) (load.Stats, error) {
	stats := load.Run(ctx, t.twin.Target(port), t.twin.Heavy(), load.Load{Workers: 4, For: long})
	if stats.Failed > 0 || ctx.Err() != nil {
		return stats, errors.Join(fmt.Errorf("what keeps it busy failed: %s", stats), ctx.Err())
	}
	return stats, nil
}

// learnHot keeps the service busy for longer than the agent measures how often calls are held, and asks it what it says.
func (t *trial) learnHot(ctx context.Context) error {
	if _, err := t.busy(ctx, port, t.watch); err != nil {
		return err
	}
	events, err := t.bed.client.Events(ctx, api.EventQuery{Kind: "hot", Workload: t.workload, Limit: 100})
	for _, e := range events {
		said, _, _ := strings.Cut(e.Text, ";")
		call, _, _ := strings.Cut(said, " is held ")
		again := func(other string) bool { return strings.HasPrefix(other, call+" is held ") }
		if slices.ContainsFunc(t.served.hot, again) {
			continue // it was in an earlier life of the service, too
		}
		t.served.hot = append(t.served.hot, said)
		fmt.Printf("hot: %s\n", said)
	}
	return err
}

// renew the service, as the agent says that one should.
func (t *trial) renew(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, t.whittle, "renew", t.twin.Name, "--podman", t.bed.env.Socket(), "--state", t.bed.path("state"))
	cmd.Env = append(os.Environ(), t.bed.env.Environ()...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("whittle renew: %w: %s", err, strings.TrimSpace(string(out)))
	}
	if err := until(ctx, time.Minute, "the renewed service answers", func() bool { return t.answers(ctx, port) }); err != nil {
		return err
	}
	return sleep(ctx, booted)
}
