// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/whittle-sec/whittle/internal/api"
)

const (
	bootRounds   = 10
	barBootRatio = 1.10
	barBootMore  = 50 * time.Millisecond
)

// supervisedBoot measures how long services take to start, in turn.
func (b *bench) supervisedBoot(ctx context.Context) error {
	bed, err := b.supervisedBed(ctx)
	if err != nil {
		return err
	}
	variants := []variant{standard, supervised}
	times := map[*subject]map[variant]series{}
	var spent series // the agent's CPU time for one start, in ms
	for n := range b.rounds(bootRounds) {
		for _, s := range bed.services() {
			if times[s] == nil {
				times[s] = map[variant]series{}
			}
			var steps []step
			for _, v := range variants {
				steps = append(steps, func(ctx context.Context) error {
					before, err := bed.agent.usage()
					if err != nil {
						return err
					}
					i, err := bed.start(ctx, s, v)
					if err != nil {
						return err
					}
					times[s][v] = append(times[s][v], sample{float64(i.boot) / 1e6, true})
					if v == supervised {
						err = bed.mustHold(ctx, i)
						after, failed := bed.agent.usage()
						spent, err = append(spent, sample{float64(after.cpu-before.cpu) / 1e6, true}), errors.Join(err, failed)
					}
					return errors.Join(err, bed.remove(i))
				})
			}
			for _, step := range shuffled(n, steps...) {
				if err := step(ctx); err != nil {
					return fmt.Errorf("%s: %w", s.name, err)
				}
			}
		}
	}
	t := b.report.table("Starting", fmt.Sprintf("From `podman run` to the service's first answer, in ms: medians of %d starts of each in turn. The default profile "+
		"is without Whittle's hooks; under supervision three hooks ask and tell the agent, and the calls of the boot that are rare and risky are held.",
		b.rounds(bootRounds)), "service", "default profile", "supervised", "longer", "ratio", "bar")
	for _, s := range bed.services() {
		base, held := times[s][standard].median(), times[s][supervised].median()
		more := times[s][supervised].above(times[s][standard])
		ok := held/base <= barBootRatio || more <= float64(barBootMore)/1e6
		t.row(s.name, ms(base), ms(held), ms(more), fmt.Sprintf("%.3f", held/base),
			bar(ok, "at most %.0f %% or %d ms longer", 100*(barBootRatio-1), barBootMore.Milliseconds()))
	}
	t.note("Of a supervised start the agent's CPU time is %.0f ms on average.", mean(spent))
	return nil
}

// mean, not median: what the kernel counts is in ticks of 10 ms.
func mean(s series) (m float64) {
	for _, x := range s {
		m += x.value / float64(len(s))
	}
	return m
}

// mustHold checks that a container is what it is measured as.
func (bed *supervisedBed) mustHold(ctx context.Context, i *instance) error {
	held, err := bed.supervision(ctx, i)
	if err != nil {
		return err
	}
	if held.How != "start" || held.Mode != api.ModeEnforce || held.Listeners == 0 {
		return fmt.Errorf("it is supervised by %s in mode %s with %d listeners", held.How, held.Mode, held.Listeners)
	}
	return nil
}
