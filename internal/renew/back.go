// SPDX-License-Identifier: Apache-2.0

package renew

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/hint"
)

// errOld marks that the predecessor is not known to serve.
var errOld = errors.New("the predecessor does not serve")

// back to the predecessor, because of why. It is made even where it cannot be recorded: it is what Recover would do with the
// journal as it is.
func (p *passage) back(ctx context.Context, why error) {
	p.result.Why, p.result.Hint = why.Error(), ""
	d := Done{Step: StepBack, State: Begins, At: p.now()}
	if err := p.add(entry{Step: StepBack, At: d.At}); err != nil {
		p.warn(err)
	}
	p.tell(d)
	began := time.Now()
	undo := p.undo
	if p.head.Plan.Unit != "" {
		undo = p.undoUnit
	}
	err := undo(ctx)
	serves := cmp.Or(p.restored, p.head.Old)
	d.State, d.Took = Ended, time.Since(began)
	switch {
	case err == nil:
		p.result.Outcome, p.result.Serving = RolledBack, serves
	case errors.Is(err, errOld):
		p.result.Outcome = Broken
		p.result.Why += "; and then: " + err.Error()
	default:
		p.result.Outcome, p.result.Serving = RolledBack, serves
		p.warn(err)
	}
	if err != nil {
		d.State, d.Note = Failed, err.Error()
		p.result.Hint = "what is left to do is done by: sudo whittle renew --recover"
	} else if h := hint.Of(why); h != "" {
		p.warn(errors.New(h))
	}
	p.result.Steps = append(p.result.Steps, d)
	p.tell(d)
}

// undo all that was done. An error that is errOld means that nothing serves; of any other, that something was left behind.
func (p *passage) undo(ctx context.Context) error {
	ended := p.endSuccessor(ctx)
	serves, err := p.oldServes(ctx)
	if err != nil {
		return fmt.Errorf("%w: %w", errOld, errors.Join(err, ended))
	}
	if serves {
		return errors.Join(ended, p.stepAside(ctx))
	}
	// Never two at once: as long as the successor may run, the predecessor does not.
	if ended != nil {
		return fmt.Errorf("%w: it was not started because the successor may still run: %w", errOld, ended)
	}
	if err := p.restore(ctx); err != nil {
		return fmt.Errorf("%w: %w", errOld, err)
	}
	return nil
}

// endSuccessor and remove it, if it was made for this.
func (p *passage) endSuccessor(ctx context.Context) error {
	id := p.successor
	if id == "" && p.has(StepMake) {
		c, err := p.inspect(ctx, p.head.New) // it may have been made though nobody said so
		if err != nil {
			return fmt.Errorf("look for the successor: %w", err)
		}
		id = c.ID
	}
	if id == "" {
		return nil
	}
	if p.next != nil {
		err := p.next.Close()
		p.next = nil
		if err != nil {
			return err
		}
	}
	if p.head.Request.Successor != "" {
		if !p.has(StepStart) && !p.has(StepInit) {
			return nil
		}
		return p.endIt(ctx, id, p.head.Plan.Drain)
	}
	if err := p.endIt(ctx, id, 0); err != nil {
		return err
	}
	err := p.ask(ctx, func(ctx context.Context) error { return p.Engine.Remove(ctx, id) })
	if err != nil {
		return fmt.Errorf("remove the successor: %w", err)
	}
	return nil
}

func (p *passage) endIt(ctx context.Context, id string, within time.Duration) error {
	if err := p.halt(ctx, id, within); err != nil {
		return fmt.Errorf("stop the successor: %w", err)
	}
	return nil
}

// oldServes tells whether the predecessor runs and will go on doing so. One that was told to stop ends, if only late.
func (p *passage) oldServes(ctx context.Context) (bool, error) {
	if p.has(StepStop) || p.has(StepDrain) {
		_ = p.halted() // it is asked for again
		err := p.halt(ctx, p.head.Old, p.head.Plan.Drain)
		if err == nil {
			return false, nil
		}
		// An engine that was away all the time has stopped nothing.
		if !errors.Is(err, engine.ErrUnavailable) || errors.Is(err, engine.ErrOutcomeUnknown) || !p.oldAlive() {
			return false, fmt.Errorf("stop the predecessor, to start it again: %w", err)
		}
		return true, nil
	}
	if p.oldAlive() {
		return true, nil
	}
	c, err := p.inspect(ctx, p.head.Old)
	return c.State.Alive(), err
}

// oldAlive by what the kernel knows, for engines that do not answer.
func (p *passage) oldAlive() bool { return p.old != nil && p.old.Alive() == nil }

// stepAside of a predecessor that was never stopped.
func (p *passage) stepAside(ctx context.Context) error {
	var err error
	if p.gate != nil {
		err = p.gate.Open()
		p.gate = nil
	}
	if p.line != nil {
		err = errors.Join(err, p.line.Return())
	}
	p.gapEnds()
	line, shared := p.line, p.shared
	p.line, p.shared = nil, nil
	if shared != nil {
		err = errors.Join(err, shared.Close())
	}
	if line != nil {
		err = errors.Join(err, line.Close())
	}
	return err
}

// restore a predecessor that was stopped. Connections wait meanwhile, as they did for the successor.
func (p *passage) restore(ctx context.Context) error {
	p.deadline = time.Now().Add(p.head.Plan.Patience)
	if err := p.launch(ctx, p.head.Old); err != nil {
		return fmt.Errorf("start it again: %w", err)
	}
	return p.serveAgain(ctx, p.head.Old)
}

// serveAgain gives what waits, and what comes, to the predecessor, which was started again.
func (p *passage) serveAgain(ctx context.Context, id string) error {
	if len(p.head.Plan.Ports) == 0 {
		p.gapEnds()
		return nil
	}
	next, err := p.awaitListeners(ctx, id)
	if err != nil {
		return fmt.Errorf("start it again: %w", err)
	}
	p.next = next
	if p.line != nil {
		if err := p.line.Admit(next); err != nil {
			return err
		}
	}
	// It served before, whatever is asked of a successor: what it does not say in time is no reason to keep clients waiting.
	switch err := p.awaitReady(ctx, id, Ready{}); {
	case errors.Is(err, errLate):
		p.warn(fmt.Errorf("the predecessor: %w", err))
	case err != nil:
		return fmt.Errorf("start it again: %w", err)
	}
	if _, err := p.turn(ctx); err != nil {
		return err
	}
	_, err = p.release(ctx)
	return err
}
