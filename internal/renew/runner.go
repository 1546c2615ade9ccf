// SPDX-License-Identifier: Apache-2.0

package renew

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/engine/process"
	"github.com/whittle-sec/whittle/internal/hint"
)

var (
	// ErrBusy means that a renewal of the container is under way.
	ErrBusy = errors.New("the container is being renewed")
	// ErrUnfinished means that one was killed on the way, and must be finished or undone first.
	ErrUnfinished = errors.New("an earlier renewal of the container was cut off")
	// ErrRefused means that the plan has no strategy.
	ErrRefused = errors.New("it cannot be renewed")
)

// DefaultDir of the journals.
const DefaultDir = "/var/lib/whittle/renew"

// Runner makes renewals. Its fields are set before the first one.
type Runner struct {
	Engine engine.Maker
	Dir    string           // of the journals; it is made when there is none
	Tell   func(Done)       // each step, when it begins and when it has ended; may be nil
	Now    func() time.Time // nil: time.Now
	// Away is for how long an engine that is not there is asked again; 0: 15 s.
	Away time.Duration
	// Keep leaves the journal of a renewal that has ended until Recover has returned its result, or Forget is called: for
	// those who may not be there any more when it ends.
	Keep bool
}

// Run a renewal to its end. What became of it is in the Result, a rollback too; an error means that nothing was changed, or
// that it is not known what holds. A ctx that is done before the successor was given the traffic means going back.
func (r *Runner) Run(ctx context.Context, q Request) (Result, error) {
	b, plan, err := r.plan(ctx, q)
	if err == nil && plan.Strategy == "" {
		err = hint.Add(fmt.Errorf("%w: %s", ErrRefused, plan.Refused), plan.Hint)
	}
	if err != nil {
		// In the middle of another renewal it may be stopped, or its name be nobody's: that is what is to be told then.
		if other := busy(r.Dir, func(j *journal) bool { return j.called(q.Container) }); other != nil {
			err = other
		}
		return Result{}, err
	}
	successor, err := r.successor(ctx, q, b, plan)
	if err != nil {
		return Result{}, err
	}
	j, err := begin(r.Dir, header{
		Began: r.now(), Request: q, Plan: plan, Engine: r.Engine.Name(), Socket: socketOf(r.Engine), Old: b.ID, New: successor,
		NetNS: b.NetworkKept || plan.Strategy == Socket,
	})
	if err != nil {
		return Result{}, err
	}
	p := &passage{Runner: r, journal: j, began: time.Now(), result: Result{
		ID: j.head.ID, Container: b.Name, Predecessor: b.ID, Strategy: plan.Strategy, Warnings: plan.Warnings,
	}}
	if q.Successor != "" {
		p.result.Successor, p.successor = successor, successor
	}
	if err := p.still(ctx, b); err != nil {
		return Result{}, errors.Join(err, j.remove())
	}
	p.run(ctx, plan.Steps)
	p.tellAddress(context.WithoutCancel(ctx), b.Addresses)
	return p.end()
}

// still makes sure that the plan is of what is there, now that nobody else may renew it.
func (p *passage) still(ctx context.Context, b engine.Blueprint) (err error) {
	if p.old, err = process.Open(b.PID); err != nil {
		return fmt.Errorf("watch the predecessor: %w", err)
	}
	c, err := p.Engine.Inspect(ctx, b.ID)
	if err == nil && (c.PID != b.PID || c.Name != b.Name) {
		err = errors.New("it was renewed, renamed or started anew while it was looked at")
	}
	if err != nil {
		return errors.Join(fmt.Errorf("look at %s again: %w", b.Name, err), p.old.Close())
	}
	return nil
}

// successor is what it is found by before it is made: the id of an existing one, the name of one to be made, or the unit that
// makes it.
func (r *Runner) successor(ctx context.Context, q Request, b engine.Blueprint, plan Plan) (string, error) {
	switch {
	case plan.Unit != "":
		return "unit:" + plan.Unit, nil
	case q.Successor == "":
		return newName(b.Name, "new"), nil
	}
	c, err := r.Engine.Inspect(ctx, q.Successor)
	if err != nil {
		return "", fmt.Errorf("find the successor: %w", err)
	}
	return c.ID, nil
}

func (r *Runner) now() time.Time {
	if r.Now == nil {
		return time.Now()
	}
	return r.Now()
}

func (r *Runner) tell(d Done) {
	if r.Tell != nil {
		r.Tell(d)
	}
}
