// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/judge"
	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/testbed/services"
)

// operations of a service that are rare: each in a container and under an agent of its own, unless they are done together.
func (s *subject) operations(ctx context.Context, o options, r *serviceResult) {
	var rare []services.Op
	for _, op := range s.Ops {
		if op.Rare && named(o.ops, op.Name) {
			rare = append(rare, op)
		}
	}
	slices.SortStableFunc(rare, func(a, b services.Op) int { return b2i(a.Last) - b2i(b.Last) })
	trials := [][]services.Op{rare}
	if !o.together {
		trials = nil
		for _, op := range rare {
			trials = append(trials, []services.Op{op})
		}
	}
	for _, ops := range trials {
		if ctx.Err() != nil {
			return
		}
		life, done, err := s.trial(ctx, ops)
		if err != nil {
			for _, op := range ops[len(done):] {
				done = append(done, opResult{Op: op.Name, Doc: op.Doc, Problem: err.Error()})
			}
		}
		r.Lives = append(r.Lives, life)
		r.Ops = append(r.Ops, done...)
		for _, d := range done {
			s.say("%s", d.line())
		}
	}
}

// trial is a life of the enforced service: its start and its load, some operations, its load again and its stop.
func (s *subject) trial(ctx context.Context, ops []services.Op) (l life, done []opResult, err error) {
	var unseen []string
	for _, op := range ops {
		unseen = append(unseen, unlearnedFor(s.Name, op.Name)...)
	}
	e, err := s.enforce(ctx, unseen...)
	if err != nil {
		return l, nil, err
	}
	defer func() {
		if end := e.end(); end != nil {
			l.Problems = append(l.Problems, end.Error())
		}
	}()
	l.note("load", s.load(ctx, e.Instance))
	if s.runs { // a job boots for as long as it lives
		l.note("settle", e.settled(ctx))
	}
	before, err := e.guard.news(ctx)
	if err != nil {
		return l, nil, err
	}
	l.add(before)
	for _, op := range ops {
		began := time.Now()
		failed := op.Do(ctx, e.Instance)
		n, err := e.guard.news(ctx)
		if err != nil {
			return l, done, err
		}
		done = append(done, judgeOp(op, failed, n, time.Since(began)))
	}
	if last := ops[len(ops)-1]; !last.Last && e.Alive() {
		// It may still recover from what was done to it.
		l.note("load after the operation", services.Eventually(ctx, 20*time.Second, func() error { return s.load(ctx, e.Instance) }))
		l.note("stop", e.Stop(ctx))
	}
	after, err := e.guard.news(ctx)
	if err == nil {
		l.add(after)
	}
	return l, done, err
}

// judgeOp says what became of an operation.
func judgeOp(op services.Op, failed error, n news, took time.Duration) opResult {
	r := opResult{Op: op.Name, Doc: op.Doc, Seconds: took.Seconds(), Refused: ofService(n.Refused), Cases: n.Cases, Other: n.Other}
	if failed != nil {
		r.Problem = failed.Error()
	}
	return r
}

// ofService are the refusals of calls that the service itself made, not somebody who was started in its container.
func ofService(all []api.HeldLine) (out []api.HeldLine) {
	for _, l := range all {
		if l.Lane == observe.LaneService.String() {
			out = append(out, l)
		}
	}
	return out
}

// note what of its own life did not work.
func (l *life) note(what string, err error) {
	if err != nil {
		l.Problems = append(l.Problems, fmt.Sprintf("%s: %v", what, err))
	}
}

func (l *life) add(n news) {
	l.Refused = append(l.Refused, ofService(n.Refused)...)
	l.Cases = append(l.Cases, n.Cases...)
}

// allowed tells whether the panel let a case through.
func allowed(c judge.Case) bool { return c.Decision.Verdict >= judge.Once }

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}
