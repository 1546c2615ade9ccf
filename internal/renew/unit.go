// SPDX-License-Identifier: Apache-2.0

package renew

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/hint"
	"github.com/whittle-sec/whittle/internal/traffic"
	"github.com/whittle-sec/whittle/internal/units"
)

// A container that a systemd unit manages is renewed by its unit, which would start again what others stop. Its successor is
// what the unit starts, and is found by its name.

// restartMargin is what systemd, and the engine under it, may take beyond the unit's own times.
const restartMargin = 30 * time.Second

// systemdPID is whose network the sockets are in that systemd gives away, whatever the container's is.
const systemdPID = 1

func (p *passage) writeProfile(context.Context) (string, error) {
	return p.head.Plan.Profile, replaceProfile(p.head.Plan.Profile, p.head.ID, p.head.Request.Changes.Seccomp)
}

// restart the unit. Our descriptors of the predecessor's sockets go first, as in stop.
func (p *passage) restart(ctx context.Context) (string, error) {
	if p.shut.IsZero() && p.line == nil {
		p.shut = time.Now()
	}
	if p.owner != nil {
		p.settle(ctx)
		err := p.owner.Close()
		p.owner = nil
		if err != nil {
			return "", err
		}
	}
	plan := p.head.Plan
	if err := units.Restart(ctx, plan.Unit, plan.RestartWithin); err != nil {
		return "", withHint(err)
	}
	p.deadline = time.Now().Add(plan.Patience)
	return plan.Unit, p.adopt(ctx)
}

// adopt what the unit has started as the successor. One that has another profile than it should have is none.
func (p *passage) adopt(ctx context.Context) error {
	c, err := p.started(ctx)
	if err != nil {
		return err
	}
	p.successor, p.result.Successor = c.ID, c.ID
	if err := p.add(entry{Made: c.ID}); err != nil {
		return err
	}
	plan := p.head.Plan
	switch {
	case plan.Profile == "":
		return nil
	case c.ID == p.head.Old:
		return fmt.Errorf("%s started the same container again, with the profile that it was made with", plan.Unit)
	case c.Seccomp != plan.Profile:
		return fmt.Errorf("%s started it with the profile %s, and not with %s", plan.Unit, c.Seccomp, plan.Profile)
	}
	return nil
}

// started is the container that the unit runs now, once it does; until p.deadline.
func (p *passage) started(ctx context.Context) (engine.Container, error) {
	plan := p.head.Plan
	if plan.Strategy == Socket && p.ns == nil {
		var err error
		if p.ns, err = traffic.OpenNetNS(systemdPID); err != nil {
			return engine.Container{}, err
		}
	}
	for {
		c, err := p.inspect(ctx, plan.Container)
		if err != nil {
			return c, err
		}
		if c.State.Alive() && c.PID > 0 && (p.old == nil || c.PID != p.old.PID || !p.oldAlive()) {
			return c, nil
		}
		u, err := units.Look(ctx, plan.Unit)
		switch {
		case err != nil:
			return c, err
		case !u.Queued && (u.State == "failed" || u.State == "inactive" || u.State == "activating"): // again, by Restart=
			return c, errors.New(p.unitEnded())
		case time.Now().After(p.deadline) || ctx.Err() != nil:
			return c, fmt.Errorf("after %v %s has started no container %s; journalctl -u %s says why", plan.Patience, plan.Unit, plan.Container, plan.Unit)
		}
		pause(ctx, 20*time.Millisecond)
	}
}

// unitEnded is the epitaph of a container that its unit has removed: its engine knows nothing of it any more.
func (p *passage) unitEnded() string {
	return fmt.Sprintf("it ended; journalctl -u %s says why", p.head.Plan.Unit)
}

// undoUnit puts the profile back first: from then on whoever starts the unit starts the predecessor.
func (p *passage) undoUnit(ctx context.Context) error {
	next := p.next
	p.next = nil
	if next != nil {
		if err := next.Close(); err != nil {
			p.warn(err)
		}
	}
	untouched := p.untouched(ctx)
	if err := p.putBack(); err != nil {
		err = fmt.Errorf("put the profile back: %w", err)
		if !untouched {
			return fmt.Errorf("%w: %w", errOld, err)
		}
		return errors.Join(err, p.stepAside(ctx))
	}
	if untouched {
		return p.stepAside(ctx)
	}
	if err := p.restoreUnit(ctx); err != nil {
		return fmt.Errorf("%w: %w", errOld, err)
	}
	return nil
}

// untouched tells whether the predecessor runs, and nobody has asked systemd for anything else, or in vain; or what was started
// since is what it was.
func (p *passage) untouched(ctx context.Context) bool {
	restarted, alive := p.has(StepRestart), p.oldAlive()
	if alive && !restarted {
		return true
	}
	u, err := units.Look(ctx, p.head.Plan.Unit)
	switch {
	case restarted && !alive:
		return false
	case err != nil: // who cannot be asked has restarted nothing
		return true
	case restarted:
		return u.Steady()
	}
	// It has ended, though not by us. Unless somebody has stopped the unit it has started another, as after a reboot, or has tried:
	// under the new profile, if that was in its place by then.
	return !p.has(StepProfile) || u.State == "inactive" && !u.Queued
}

// restoreUnit has the unit start what it started before. One that failed too often has closed its sockets.
func (p *passage) restoreUnit(ctx context.Context) error {
	plan := p.head.Plan
	if err := units.Open(ctx, plan.Sockets...); err != nil {
		p.warn(err)
	}
	if err := units.Restart(ctx, plan.Unit, plan.RestartWithin); err != nil {
		return fmt.Errorf("start it again: %w", withHint(err))
	}
	p.deadline = time.Now().Add(max(plan.Patience, DefaultPatience)) // there is nobody else to wait for
	c, err := p.started(ctx)
	if err != nil {
		return fmt.Errorf("start it again: %w", err)
	}
	p.restored = c.ID
	return p.serveAgain(ctx, c.ID)
}

// putBack the profile of the predecessor, if it was replaced.
func (p *passage) putBack() error {
	if p.head.Plan.Profile == "" {
		return nil
	}
	return restoreProfile(p.head.Plan.Profile, p.head.ID)
}

// resumeUnit where another process was cut off. systemd goes on by itself: what it has started since serves if it can, so
// that clients do not have to bear another restart.
func (p *passage) resumeUnit(ctx context.Context, cut error) {
	if p.has(StepRestart) && !p.has(StepBack) {
		err := p.onwardUnit(ctx)
		if err == nil {
			p.result.Outcome, p.result.Serving, p.result.Why = Renewed, p.successor, cut.Error()
			return
		}
		cut = fmt.Errorf("%w; %w", cut, err)
	}
	// As in backCold: undoing takes our traces from the sockets.
	if p.has(StepForm) && p.oldAlive() && p.line == nil {
		if err := p.stand(ctx, p.head.Old); err != nil {
			p.warn(err)
		}
	}
	p.back(ctx, cut)
}

// onwardUnit with what the unit runs. An error means that it does not serve, or is the predecessor.
func (p *passage) onwardUnit(ctx context.Context) error {
	if !p.forward() && p.untouched(ctx) {
		return errors.New("its unit was not restarted")
	}
	p.deadline = time.Now().Add(p.head.Plan.Patience)
	if err := p.adopt(ctx); err != nil {
		return err
	}
	if len(p.head.Plan.Ports) > 0 {
		next, err := p.awaitListeners(ctx, p.successor)
		if err != nil {
			return err
		}
		p.next = next
	}
	if err := p.awaitReady(ctx, p.successor, p.head.Request.Ready); err != nil && !p.forward() {
		return err
	}
	if !p.has(StepForm) {
		return nil
	}
	if err := p.stand(ctx, p.successor); err != nil {
		p.warn(fmt.Errorf("wake the successor: %w", err)) // it serves what comes all the same
		return nil
	}
	if _, err := p.release(ctx); err != nil {
		p.warn(err)
	}
	return nil
}

// withHint in the text: a result has room for one, and that is of what is left to do.
func withHint(err error) error {
	if h := hint.Of(err); h != "" {
		return fmt.Errorf("%w (%s)", err, h)
	}
	return err
}
