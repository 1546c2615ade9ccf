// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/whittle-sec/whittle/internal/api"
)

// learnedStarts is how often each service is started, loaded and stopped while it is learned.
const learnedStarts = 2

// reloadTime is for workers that end: they close connections that are idle.
const reloadTime = 500 * time.Millisecond

// learn all subjects, at the same time, and enforce what was learned from their next start on.
func (bed *supervisedBed) learn(ctx context.Context) error {
	began := time.Now()
	done := make(chan error, len(bed.subjects))
	for _, s := range bed.subjects {
		go func() {
			if err := bed.learnSubject(ctx, s); err != nil {
				done <- fmt.Errorf("learn %s: %w", s.name, err)
				return
			}
			done <- nil
		}()
	}
	var err error
	for range bed.subjects {
		err = errors.Join(err, <-done)
	}
	if err != nil {
		return err
	}
	if err := bed.enforce(ctx); err != nil {
		return err
	}
	bed.bench.say("learned %d workloads in %.0f s", len(bed.subjects), time.Since(began).Seconds())
	return nil
}

func (bed *supervisedBed) learnSubject(ctx context.Context, s *subject) error {
	if s.prepare != nil {
		if err := s.prepare(ctx, bed); err != nil {
			return err
		}
	}
	if s.load == nil {
		_, err := bed.held(ctx, s, learned, heldLearned)
		return err
	}
	for n := range learnedStarts {
		i, err := bed.start(ctx, s, learned)
		if err != nil {
			return err
		}
		err = bed.use(ctx, i, n == 0)
		if err == nil {
			_, err = bed.env.Run(ctx, "stop", i.container)
		}
		if err == nil && n == 0 && s.kept != nil {
			err = s.kept(bed, i.container)
		}
		if err := errors.Join(err, bed.remove(i)); err != nil {
			return err
		}
	}
	return nil
}

// use a service as it will be used.
func (bed *supervisedBed) use(ctx context.Context, i *instance, first bool) error {
	if first && i.fill != nil {
		if err := i.fill(ctx, i); err != nil {
			return err
		}
	}
	if _, err := i.subject.load(ctx, i); err != nil {
		return err
	}
	if i.reload == "" {
		return nil
	}
	if _, err := bed.env.Run(ctx, "kill", "--signal", i.reload, i.container); err != nil {
		return err
	}
	time.Sleep(reloadTime)
	_, err := i.subject.load(ctx, i)
	return err
}

// enforce what was learned, once all of it is stored.
func (bed *supervisedBed) enforce(ctx context.Context) error {
	if err := bed.forgotten(ctx); err != nil {
		return err
	}
	known, err := bed.agent.client.Workloads(ctx)
	if err != nil {
		return err
	}
	for _, s := range bed.subjects {
		for _, w := range known {
			if strings.HasPrefix(w.Name, s.name) || strings.Contains(w.Name, "/"+s.name) {
				s.workload = w.ID
			}
		}
		if s.workload == "" {
			return fmt.Errorf("nothing was learned of %s", s.name)
		}
		if err := bed.mode(ctx, s, api.ModeEnforce); err != nil {
			return err
		}
	}
	return nil
}

func (bed *supervisedBed) mode(ctx context.Context, s *subject, m api.WorkloadMode) error {
	_, err := bed.agent.client.SetMode(ctx, api.ModeChange{Workload: s.workload, Mode: m})
	return err
}

// forgotten waits until the agent has stored what it knows of all containers that ended.
func (bed *supervisedBed) forgotten(ctx context.Context) error {
	for range 200 {
		status, err := bed.agent.client.Status(ctx)
		if err != nil {
			return err
		}
		if len(status.Containers) == 0 {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return errors.New("the agent does not notice that containers have ended")
}

// supervision of a container, as the agent tells it.
func (bed *supervisedBed) supervision(ctx context.Context, i *instance) (api.Supervision, error) {
	status, err := bed.agent.client.Status(ctx)
	if err != nil {
		return api.Supervision{}, err
	}
	for _, c := range status.Containers {
		if c.Name == i.container && c.Supervision != nil {
			return *c.Supervision, nil
		}
	}
	return api.Supervision{}, fmt.Errorf("%s is not supervised", i.container)
}
