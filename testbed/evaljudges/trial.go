// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/corpus"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/testbed/services"
)

// How much a service is watched before it is enforced: its start, its load and its stop, and none of its rare operations.
const (
	trainings     = 2
	trainingLoads = 3
	trainingPause = 3 * time.Second // after its first load: what it does when it has nothing to do
	readingAhead  = 3 * time.Second
)

// subject is a service under evaluation.
type subject struct {
	services.Service
	whittle  string
	corpus   string // the file of its rules: those of all services but it and its kin
	trained  string // the directory of the agent that has learned from it
	workload string // its ID
	runs     bool   // it was seen to do something after its boot
}

func (s *subject) say(format string, args ...any) { say(s.Name+": "+format, args...) }

// evaluateService from its first start to the last attack.
func evaluateService(ctx context.Context, o options, service services.Service) (r serviceResult) {
	r = serviceResult{Service: service.Name, Packages: versions(ctx, service)}
	dir, err := os.MkdirTemp("/var/tmp", "whittle-eval-"+service.Name+"-")
	if err != nil {
		r.Problem = err.Error()
		return r
	}
	defer os.RemoveAll(dir)
	s := &subject{Service: service, whittle: o.whittle, corpus: filepath.Join(dir, "corpus.bin")}
	if r.LeftOut, err = leaveOut(s.corpus, service.Name); err == nil {
		err = s.train(ctx, &r, nil)
	}
	if s.trained != "" {
		defer os.RemoveAll(s.trained)
	}
	if err != nil {
		r.Problem = err.Error()
		s.say("%v", err)
		return r
	}
	if !o.noOps {
		s.operations(ctx, o, &r)
	}
	if !o.noAttacks {
		s.attacked(ctx, o, &r)
	}
	return r
}

// leaveOut of the shipped corpus what was recorded of a service, and of all that come from the same packages, and write the rest.
func leaveOut(file, name string) (left []string, err error) {
	all, err := corpus.Shipped()
	if err != nil {
		return nil, err
	}
	left = kin(all.Services(), name)
	f, err := os.Create(file)
	if err != nil {
		return nil, err
	}
	return left, errors.Join(corpus.Write(f, all.Without(left...)), f.Close())
}

// kin of a service are all that share a package with it, and itself.
func kin(all []corpus.Service, name string) (out []string) {
	own := map[string]bool{}
	for _, s := range all {
		if s.Name == name {
			for _, p := range s.Packages {
				own[p] = true
			}
		}
	}
	for _, s := range all {
		related := s.Name == name
		for _, p := range s.Packages {
			related = related || own[p]
		}
		if related {
			out = append(out, s.Name)
		}
	}
	return out
}

// train an agent: it learns from the service's start, load and stop. During, which may be nil, is what else happens meanwhile.
func (s *subject) train(ctx context.Context, r *serviceResult, during func(context.Context, *services.Instance) error) error {
	g, err := startGuard(ctx, s.whittle, s.corpus, "", nil)
	if err != nil {
		return err
	}
	s.trained = g.dir
	defer func() { _ = g.end() }()
	for range trainings {
		if err := s.lesson(ctx, g, during); err != nil {
			return fmt.Errorf("train: %w", err)
		}
	}
	w, err := g.client.Workloads(ctx)
	if err != nil {
		return err
	}
	if len(w) != 1 {
		return fmt.Errorf("train: %d workloads were learned, want 1", len(w))
	}
	p, err := g.client.Policy(ctx, w[0].ID)
	if err != nil {
		return err
	}
	if r.Policy, err = json.Marshal(p); err != nil {
		return err
	}
	s.workload, s.runs = w[0].ID, w[0].ByPhase["run"] > 0
	r.Workload, r.Partial, r.Learned = w[0].ID, w[0].Partial, w[0].ByPhase
	_, err = g.client.SetMode(ctx, api.ModeChange{Workload: w[0].ID, Mode: api.ModeEnforce})
	return errors.Join(err, g.end())
}

// lesson is one life of the service.
func (s *subject) lesson(ctx context.Context, g *guard, during func(context.Context, *services.Instance) error) (err error) {
	began := time.Now()
	o := services.Options{Runtime: g.runtime()}
	if during != nil { // whatever an intruder does meanwhile succeeds
		o.Edit = func(spec *specs.Spec) error { spec.Linux.Seccomp = nil; return nil }
	}
	i, err := services.Start(ctx, s.Service, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, i.Remove()) }()
	for n := range trainingLoads {
		if err := s.load(ctx, i); err != nil {
			return err
		}
		if n == 0 {
			time.Sleep(trainingPause)
		}
		if n == 0 && during != nil {
			if err := during(ctx, i); err != nil {
				return err
			}
		}
	}
	if err := i.Stop(ctx); err != nil {
		return err
	}
	if err := errors.Join(i.Remove(), g.forgotten(ctx)); err != nil {
		return err
	}
	s.say("learned from in %.1f s", time.Since(began).Seconds())
	return nil
}

// load does every operation of the service that is not rare.
func (s *subject) load(ctx context.Context, i *services.Instance) error {
	for _, op := range s.Ops {
		if op.Rare || op.Last {
			continue
		}
		if err := op.Do(ctx, i); err != nil {
			return fmt.Errorf("%s: %w", op.Name, err)
		}
	}
	return nil
}

// enforced is one life of the service under enforcement.
type enforced struct {
	*services.Instance
	guard *guard
}

// enforce the trained policy on a new container, by an agent that knows what the trained one did and nothing more; and not even
// that of the calls that are to be unseen.
func (s *subject) enforce(ctx context.Context, unseen ...string) (e *enforced, err error) {
	g, err := startGuard(ctx, s.whittle, s.corpus, s.trained, func(dir string) error {
		if len(unseen) == 0 {
			return nil
		}
		return unlearn(ctx, dir, s.workload, unseen)
	})
	if err != nil {
		return nil, err
	}
	e = &enforced{guard: g}
	if _, err := g.news(ctx); err != nil { // what the trained one had to say
		return nil, errors.Join(err, e.end())
	}
	if e.Instance, err = services.Start(ctx, s.Service, services.Options{Runtime: g.runtime()}); err != nil {
		n, _ := g.news(ctx)
		return nil, errors.Join(fmt.Errorf("%w; refused: %s", err, lines(n.Refused)), e.end())
	}
	for range 250 {
		c, err := g.container(ctx, e.ID)
		if err == nil && c.Supervision != nil && c.Supervision.Mode == api.ModeEnforce && c.Supervision.Listeners > 0 {
			return e, nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return nil, errors.Join(errors.New("it is not enforced"), e.end())
}

// settled waits until it runs: while it boots, what it does is judged by what a boot may do. Nothing rare is done in the first
// seconds after that, in which the agent reads ahead about the programs that it finds running.
func (e *enforced) settled(ctx context.Context) error {
	defer time.Sleep(readingAhead)
	return services.Eventually(ctx, 45*time.Second, func() error {
		c, err := e.guard.container(ctx, e.ID)
		if err == nil && (c.Supervision == nil || c.Supervision.Phase != policy.Run) {
			err = fmt.Errorf("%s is still in %s", e.ID, c.Phase)
		}
		return err
	})
}

// end what is left of it.
func (e *enforced) end() error {
	var err error
	if e.Instance != nil {
		err = e.Remove()
	}
	return errors.Join(err, e.guard.end(), e.guard.remove())
}

func versions(ctx context.Context, s services.Service) (out []string) {
	for _, p := range s.Packages {
		out = append(out, strings.TrimSpace(p+" "+services.Version(ctx, p)))
	}
	return out
}

func lines(all []api.HeldLine) string {
	var out []string
	for _, l := range all {
		out = append(out, fmt.Sprintf("%s (%s, %s, %s: %s)", l.Call, l.Lane, l.Role, l.Phase, l.Why))
	}
	return strings.Join(out, "; ")
}
