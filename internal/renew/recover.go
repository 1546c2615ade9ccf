// SPDX-License-Identifier: Apache-2.0

package renew

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/engine/process"
	"github.com/whittle-sec/whittle/internal/gate"
)

// Recover finishes or undoes what killed processes left: forward where the successor had been given the traffic, else back.
// Renewals of living processes, and of other engines, are left alone. It may be called at any time, also again.
func (r *Runner) Recover(ctx context.Context) ([]Result, error) {
	if _, err := os.Stat(r.Dir); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	list, err := r.abandoned()
	var results []Result
	for _, j := range list {
		result, failed := r.recover(ctx, j)
		if failed != nil {
			err = errors.Join(err, fmt.Errorf("recover the renewal of %s: %w", j.head.Plan.Container, failed))
		}
		results = append(results, result)
	}
	return results, err
}

// abandoned journals, which are ours from now on.
func (r *Runner) abandoned() (list []*journal, err error) {
	unlock, err := lockDir(r.Dir)
	if err != nil {
		return nil, err
	}
	defer unlock()
	names, err := journals(r.Dir)
	for _, name := range names {
		j, failed := take(name)
		err = errors.Join(err, failed)
		switch {
		case j == nil:
		case !j.isOf(r.Engine):
			err = errors.Join(err, j.close())
		default:
			list = append(list, j)
		}
	}
	return list, err
}

// isOf tells whether a journal is of this engine's containers: there may be two Podmans, and what the one does not know need not
// be gone.
func (j *journal) isOf(e engine.Maker) bool {
	socket := socketOf(e)
	return j.head.Engine == e.Name() && (j.head.Socket == "" || socket == "" || j.head.Socket == socket)
}

func socketOf(e engine.Maker) string {
	if s, ok := e.(interface{ Socket() string }); ok {
		return s.Socket()
	}
	return ""
}

// Elsewhere says of each cut-off renewal that none of these engines can recover how it is recovered.
func Elsewhere(dir string, engines []engine.Maker) (hints []string, err error) {
	names, err := journals(dir)
	for _, name := range names {
		j, lively, failed := read(name)
		if failed != nil || j == nil || lively || j.result() != nil || slices.ContainsFunc(engines, j.isOf) {
			continue // Recover tells of what cannot be read
		}
		hints = append(hints, fmt.Sprintf("of %s there is one that was cut off with %s at another socket: whittle renew --recover --engine %s --%s %s",
			j.head.Plan.Container, j.head.Engine, j.head.Engine, j.head.Engine, j.head.Socket))
	}
	return hints, err
}

// Forget the result of a renewal that has ended (Runner.Keep).
func Forget(dir, id string) error {
	j, err := take(filepath.Join(dir, filepath.Base(id)+suffix))
	if err != nil || j == nil {
		return err
	}
	if j.result() == nil {
		return j.close()
	}
	return j.remove()
}

func (r *Runner) recover(ctx context.Context, j *journal) (Result, error) {
	if done := j.result(); done != nil {
		return *done, j.remove()
	}
	h := j.head
	p := &passage{Runner: r, journal: j, began: time.Now(), successor: j.made(), result: Result{
		ID: h.ID, Container: h.Plan.Container, Predecessor: h.Old, Strategy: h.Plan.Strategy,
	}}
	p.Keep = false
	if h.Request.Successor != "" {
		p.successor = h.New
	}
	p.result.Successor = p.successor
	cut := errors.New("the process that made it was killed before anything was done")
	if n := len(j.entries); n > 0 {
		cut = fmt.Errorf("the process that made it was killed, at %s", j.last())
	}
	ctx = context.WithoutCancel(ctx)
	defer p.letGo()
	p.resume(ctx, cut)
	return p.end()
}

// last step that was begun.
func (j *journal) last() (s Step) {
	for _, e := range j.entries {
		if e.Step != "" {
			s = e.Step
		}
	}
	return s
}

// resume where another process was cut off.
func (p *passage) resume(ctx context.Context, cut error) {
	if p.head.Plan.Strategy == Gate {
		if err := gate.Clean(ctx); err != nil {
			p.warn(err)
		}
	}
	old, err := p.inspect(ctx, p.head.Old)
	if err != nil {
		p.result.Outcome, p.result.Why = Broken, fmt.Sprintf("%v; what holds is not known: %v", cut, err)
		return
	}
	if old.State.Alive() && old.PID > 0 {
		if p.old, err = process.Open(old.PID); err != nil {
			p.old = nil // it has ended since
		}
	}
	if p.head.Plan.Unit != "" {
		p.resumeUnit(ctx, cut)
		return
	}
	// Where somebody has removed the predecessor meanwhile, the successor is all that there is.
	if p.forward() || old.ID == "" && p.has(StepStart) {
		if err = p.onward(ctx, old); err == nil {
			p.result.Outcome, p.result.Serving, p.result.Why = Renewed, p.successor, cut.Error()
			return
		}
		if old.ID == "" {
			p.result.Outcome, p.result.Why = Broken, fmt.Sprintf("%v; the predecessor is gone, and the successor does not serve: %v", cut, err)
			p.abandoned = errors.Is(err, errGone)
			return
		}
		cut = fmt.Errorf("%w; the successor does not serve: %w", cut, err)
	}
	p.backCold(ctx, cut, old)
}

// onward from the moment in which the successor was given the traffic. An error means that it does not serve.
func (p *passage) onward(ctx context.Context, old engine.Container) error {
	p.deadline = time.Now().Add(p.head.Plan.Patience)
	if err := p.standAgain(ctx, p.successor, old); err != nil {
		return err
	}
	if old.State.Alive() {
		if err := p.halt(ctx, p.head.Old, p.head.Plan.Drain); err != nil {
			p.leave(err)
			return nil
		}
	}
	if _, err := p.release(ctx); err != nil {
		p.warn(err)
	}
	if p.head.Request.Successor == "" {
		if old.ID != "" && old.Name == p.head.Plan.Container {
			if _, err := p.away(ctx); err != nil {
				p.leave(err)
				return nil
			}
		}
		if c, err := p.inspect(ctx, p.successor); err != nil || c.Name != p.head.Plan.Container {
			if _, err := p.rename(ctx); err != nil {
				p.leave(err)
				return nil
			}
		}
	}
	if p.head.Request.Retire == RetireRemove {
		switch _, err := p.removeOld(ctx); {
		case err != nil && later(err):
			p.leave(err)
		case err != nil:
			p.warn(err)
		}
	}
	return nil
}

// errGone marks that there is no successor.
var errGone = errors.New("there is none any more")

// leave the rest to the next Recover.
func (p *passage) leave(err error) {
	p.warn(err)
	p.result.Hint = "try again: sudo whittle renew --recover"
}

// standAgain beside the successor's sockets, which have what the killed process's sockets had, and wake it. The predecessor may
// still be in the group.
func (p *passage) standAgain(ctx context.Context, id string, old engine.Container) error {
	c, err := p.inspect(ctx, id)
	switch {
	case err != nil:
		return err
	case c.ID == "":
		return errGone
	case !c.State.Alive() && old.State.Alive():
		return errors.New(p.epitaph(ctx, id)) // two must not be started where one may run only
	case !c.State.Alive():
		if err := p.launch(ctx, id); err != nil {
			return err
		}
	}
	if len(p.head.Plan.Ports) == 0 {
		return nil
	}
	l, err := p.awaitListeners(ctx, id)
	if err != nil {
		return err
	}
	if err := l.Close(); err != nil || !p.has(StepForm) {
		return err
	}
	if p.ns != nil {
		p.ns.Close()
		p.ns = nil
	}
	if err := p.stand(ctx, id); err != nil {
		p.warn(fmt.Errorf("wake the successor: %w", err)) // it serves what comes all the same
	}
	return nil
}

// backCold undoes what another process did.
func (p *passage) backCold(ctx context.Context, cut error, old engine.Container) {
	if old.ID == "" {
		p.result.Outcome, p.result.Why = Broken, cut.Error()+"; somebody has removed the predecessor since"
		if err := p.endSuccessor(ctx); err != nil {
			p.leave(err)
			return
		}
		p.abandoned = true
		return
	}
	// It stands beside the predecessor again, so that undoing takes our traces from its sockets.
	if p.has(StepForm) && old.State.Alive() && !p.has(StepStop) {
		if err := p.stand(ctx, p.head.Old); err != nil {
			p.warn(err)
		}
	}
	p.back(ctx, cut)
	if p.result.Outcome == RolledBack && old.Name != p.head.Plan.Container {
		err := p.ask(ctx, func(ctx context.Context) error { return p.Engine.Rename(ctx, p.head.Old, p.head.Plan.Container) })
		if err != nil {
			p.leave(err)
		}
	}
}
