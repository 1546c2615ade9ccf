// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/loop"
	"github.com/whittle-sec/whittle/internal/renew"
)

// unready is how long a service that serves nobody yet may take to end.
const unready = 2 * time.Second

// engineTime bounds one request to an engine that takes no time of its own.
const engineTime = time.Minute

// goThere: the oracle takes production's place. Whatever was done of it before is not done again.
func (d *driver) goThere(ctx context.Context) {
	site := d.where()
	from := key{site.Engine, site.Production}
	leaves := sync.OnceFunc(func() { d.leaves(from) })
	if !d.quiesce(ctx) {
		leaves()
		return
	}
	late := time.AfterFunc(parkedMost, leaves)
	defer late.Stop()
	err := d.prepareOracle(ctx)
	if err == nil {
		err = d.exchange().there(ctx, leaves)
	}
	switch {
	case ctx.Err() != nil:
		return
	case errors.Is(err, errNotYet):
		leaves()
		d.again = d.agent.Now().Add(loopRetry / 4)
		return
	case err != nil:
		d.settle(from, "there is no time loop: "+err.Error())
		if !d.reported(true) {
			d.failed(err.Error())
		}
		return
	}
	d.stand(ctx, d.where().Oracle)
	d.settle(from, "its container was stopped")
	now := d.agent.Now()
	d.mu.Lock()
	d.machine.Serving(now)
	d.mu.Unlock()
	d.trouble(d.save(ctx))
	d.tell("the oracle serves in production's place")
	d.stir()
}

// errNotYet: something is under way that has to end first. errRolledBack: whoever served before serves again.
var (
	errNotYet     = errors.New("another move is under way")
	errRolledBack = errors.New("it did not get ready")
)

// parkedMost is how long a call waits for the oracle: as long, its caller answers nobody.
const parkedMost = 5 * time.Second

// leaves: what production is refused from now on, and may end of, takes nobody's connection away who was not served yet.
func (d *driver) leaves(from key) {
	d.mu.Lock()
	d.left = true
	d.mu.Unlock()
	d.settle(from, "a time loop begins, and the oracle takes over: whoever asked asks again")
}

// swap the container that serves, whether or not it lives, for one that is stopped. Where nobody could be connected to it, or
// the service cannot be moved, it is stopped and the other started. leaves is called once new connections go to it no more.
func (d *driver) swap(ctx context.Context, from, to string, patience time.Duration, leaves func()) error {
	maker := d.maker()
	old, err := inspect(ctx, maker, from)
	if err != nil && !errors.Is(err, engine.ErrUnknownContainer) {
		return err
	}
	next, err := inspect(ctx, maker, to)
	if err != nil {
		return err
	}
	if next.State.Alive() && !old.State.Alive() {
		return nil // before the agent was killed
	}
	within := unready
	if old.State == engine.Running && !next.State.Alive() && listens(old) {
		d.unguard() // a renewal has a line of its own
		err := d.move(ctx, renew.Request{
			Container: from, Successor: to, Ports: d.ports(from),
			Retire: renew.RetireKeep, Writers: d.where().Writers, Drain: d.specNow().Drain, Patience: patience,
		}, leaves)
		if !errors.Is(err, renew.ErrRefused) {
			return err
		}
		d.lose(fmt.Sprintf("connections were refused between a stop and a start: %v", err))
		within = max(within, d.specNow().Drain)
	}
	return d.stopStart(ctx, maker, from, to, within, patience)
}

func (d *driver) stopStart(ctx context.Context, maker engine.Maker, from, to string, within, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, engineTime+within+patience)
	defer cancel()
	if err := renew.StopForGood(ctx, maker, from, within); err != nil {
		return fmt.Errorf("stop the one that served: %w", err)
	}
	err := d.handOver(ctx, patience, func(ctx context.Context) (string, error) { return to, maker.Start(ctx, to) })
	if err != nil {
		return fmt.Errorf("start the one that is to serve: %w", err)
	}
	return nil
}

// askedToStop is how long after the step began that stops it an engine has been asked to stop a container. One that ends by
// itself before, because of what it is refused, is started again by its restart policy.
const askedToStop = 300 * time.Millisecond

// move the service, in a process of its own. leaves is called when it is being stopped.
func (d *driver) move(ctx context.Context, q renew.Request, leaves func()) error {
	r, err := d.agent.Moving.Move(ctx, d.where().Engine, q, func(done renew.Done) {
		if done.State == renew.Begins && (done.Step == renew.StepStop || done.Step == renew.StepDrain) {
			time.AfterFunc(askedToStop, leaves)
		}
	})
	switch {
	case errors.Is(err, renew.ErrBusy), errors.Is(err, renew.ErrUnfinished):
		d.settled = false
		return fmt.Errorf("%w: %w", errNotYet, err)
	case err != nil:
		return err
	case r.Outcome == renew.RolledBack:
		return fmt.Errorf("%w: %s", errRolledBack, r.Why)
	case r.Outcome != renew.Renewed:
		d.settled = false // it is to be recovered
		return fmt.Errorf("%s: %s", r.Outcome, r.Why)
	}
	d.lose(fmt.Sprintf("new connections waited for %s at most (%s)", r.Gap.Round(time.Millisecond), r.Strategy))
	return nil
}

// lose says what a move interrupted.
func (d *driver) lose(text string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.site.Lost = strings.TrimPrefix(d.site.Lost+"; "+text, "; ")
}

// settleMoves is how long a move that an earlier agent began is waited for.
const settleMoves = 3 * time.Minute

// quiesce waits for the moves that an earlier agent began, which may be going on without it.
func (d *driver) quiesce(ctx context.Context) bool {
	if d.settled {
		return true
	}
	site, now := d.where(), d.agent.Now()
	if d.began.IsZero() {
		d.began = now
	}
	busy := d.agent.recoverMoves(ctx, site.Engine, site.Production, site.Oracle)
	if busy && now.Sub(d.began) < settleMoves {
		d.again = now.Add(loopRetry / 4)
		return false
	}
	d.settled, d.began = true, time.Time{}
	return true
}

// comeBack: production serves again, under the policy as it is by now, and the oracle is no more.
func (d *driver) comeBack(ctx context.Context) {
	if !d.quiesce(ctx) {
		return
	}
	if d.maker() == nil {
		d.trouble(fmt.Errorf("no engine is called %q any more", d.where().Engine))
		d.again = d.agent.Now().Add(loopRetry)
		return
	}
	x := d.exchange()
	what, err := x.back(ctx)
	if ctx.Err() != nil || errors.Is(err, errNotYet) {
		d.again = d.agent.Now().Add(loopRetry / 4)
		return
	}
	if err == nil {
		err = x.clear(ctx)
	}
	if err != nil {
		d.unguard() // it is tried again later, which nobody is to wait for without a word
		d.failed("production does not come back: " + err.Error())
		return
	}
	d.returned(ctx, what)
}

// returned: the loop has ended, and what is there now.
func (d *driver) returned(ctx context.Context, what string) {
	now := d.agent.Now()
	d.mu.Lock()
	d.machine.Returned(now)
	record, _ := d.machine.Record()
	d.mu.Unlock()
	d.trouble(d.save(ctx))
	d.settle(key{}, "a time loop has ended in which the oracle did not reach it")
	d.tell(fmt.Sprintf("%s after %s: %s", what, record.OracleFor.Round(100*time.Millisecond), loopVerdict(record)))
	d.stir()
}

func loopVerdict(r loop.Record) string {
	text := string(r.Verdict)
	if len(r.Calls) > 0 {
		text += fmt.Sprintf(", %d calls learned", len(r.Calls))
	}
	if r.Why != "" {
		text += ": " + r.Why
	}
	return text
}

func (t *twin) where() loopSite {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.site
}

func (t *twin) at(site loopSite) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.site = site
}

func (d *driver) maker() engine.Maker { return d.agent.maker(d.where().Engine) }

func inspect(ctx context.Context, e engine.Engine, id string) (engine.Container, error) {
	ctx, cancel := context.WithTimeout(ctx, engineTime)
	defer cancel()
	return e.Inspect(ctx, id)
}
