// SPDX-License-Identifier: Apache-2.0

package renew

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/engine/process"
	"github.com/whittle-sec/whittle/internal/gate"
	"github.com/whittle-sec/whittle/internal/hint"
	"github.com/whittle-sec/whittle/internal/traffic"
)

// passage is one renewal on its way. Its process is the only one that has its journal.
type passage struct {
	*Runner
	*journal
	began  time.Time
	result Result

	successor string           // id; "" while there is none
	serving   engine.Container // the one that was started last
	old       *process.Process // the predecessor's first one; nil if it has ended
	ns        *traffic.NetNS
	owner     *traffic.Listeners // the predecessor's
	next      *traffic.Listeners // the successor's
	line      *traffic.Line
	shared    io.Closer
	gate      *gate.Gate
	halting   chan error // what comes of the predecessor's stop, which nobody has waited for; nil: nothing is to come
	shut      time.Time  // since when new connections wait; zero: they do not
	deadline  time.Time  // for the successor to be ready

	restored  string // id of what its unit has started instead of the predecessor; "" it has not
	abandoned bool   // nothing serves, and nothing is left to do about it
}

// step by step until one fails. What is done about that depends on whether the successor has the traffic.
func (p *passage) run(ctx context.Context, steps []Step) {
	defer p.letGo()
	for _, s := range steps {
		if p.forward() {
			ctx = context.WithoutCancel(ctx) // there is no way back any more, only a half-done renewal
		}
		err := ctx.Err()
		if err == nil {
			err = p.step(ctx, s, p.does(s))
		}
		switch {
		case err == nil:
		case p.forward() && s != StepTurn && !errors.Is(err, errFell):
			p.warn(err)
			if s == StepDrain || s == StepAway || s == StepName || s == StepRemove && later(err) {
				p.finish(ctx, s)
				return
			}
		default:
			p.back(context.WithoutCancel(ctx), fmt.Errorf("%s: %w", s, err))
			return
		}
	}
	p.result.Outcome, p.result.Serving = Renewed, p.successor
}

// finish what can be where the rest of a renewal cannot: the successor serves, and nothing of ours stays in its way.
func (p *passage) finish(ctx context.Context, failed Step) {
	p.result.Outcome, p.result.Serving = Renewed, p.successor
	if failed == StepDrain && p.line != nil {
		if err := p.step(ctx, StepRelease, p.release); err != nil {
			p.warn(err)
		}
	}
	p.result.Hint = "what is left to do is done by: sudo whittle renew --recover"
}

// step is recorded, then made, and told of.
func (p *passage) step(ctx context.Context, s Step, do func(context.Context) (string, error)) error {
	d := Done{Step: s, State: Begins, At: p.now()}
	if err := p.add(entry{Step: s, At: d.At}); err != nil {
		return err
	}
	p.tell(d)
	began := time.Now()
	note, err := do(ctx)
	d.State, d.Took, d.Note = Ended, time.Since(began), note
	if err != nil {
		d.State, d.Note = Failed, err.Error()
	}
	p.result.Steps = append(p.result.Steps, d)
	p.tell(d)
	return err
}

func (p *passage) does(s Step) func(context.Context) (string, error) {
	gated := p.head.Plan.Strategy == Gate
	switch s {
	case StepMake:
		return p.create
	case StepInit:
		return p.initialise
	case StepForm:
		return p.form
	case StepHold:
		if gated {
			return p.shutGate
		}
		return p.hold
	case StepStop:
		return p.stop
	case StepStart:
		return p.start
	case StepProfile:
		return p.writeProfile
	case StepRestart:
		return p.restart
	case StepListen:
		return p.listen
	case StepReady:
		return p.ready
	case StepTurn:
		return p.turn
	case StepDrain:
		return p.drain
	case StepRelease:
		return p.release
	case StepAway:
		return p.away
	case StepName:
		return p.rename
	case StepRemove:
		return p.removeOld
	}
	panic("renew: step " + string(s) + " has no deed")
}

// end writes down what became of it, and gives the result. The journal stays where something is left to do.
func (p *passage) end() (Result, error) {
	p.result.Took = time.Since(p.began)
	left := p.result.Outcome == Broken && !p.abandoned || p.result.Hint != ""
	if left {
		return p.result, p.close()
	}
	if plan := p.head.Plan; plan.Profile != "" {
		if err := forgetProfile(plan.Profile, p.head.ID); err != nil {
			return p.result, errors.Join(err, p.close())
		}
	}
	if !p.Keep {
		return p.result, p.journal.remove()
	}
	return p.result, errors.Join(p.add(entry{Result: &p.result}), p.close())
}

func (p *passage) warn(err error) {
	text := err.Error()
	if h := hint.Of(err); h != "" {
		text += " (" + h + ")"
	}
	p.result.Warnings = append(p.result.Warnings, text)
}

// letGo of what the renewal held on to. Of a line that was released, or a gate that is open, nothing is left.
func (p *passage) letGo() {
	if err := p.halted(); err != nil {
		p.warn(err)
	}
	for _, c := range []io.Closer{p.shared, closer(p.owner), closer(p.next), closer(p.line), closer(p.ns), closer(p.old)} {
		if c != nil {
			if err := c.Close(); err != nil {
				p.warn(err)
			}
		}
	}
	if p.gate != nil {
		if err := p.gate.Open(); err != nil {
			p.warn(err)
		}
	}
	p.shared, p.owner, p.next, p.line, p.ns, p.old, p.gate = nil, nil, nil, nil, nil, nil, nil
}

// closer is nil for a nil pointer, which an interface would hide.
func closer[T interface {
	comparable
	io.Closer
}](c T) io.Closer {
	var none T
	if c == none {
		return nil
	}
	return c
}

// newName beside a container's: NAME-whittle-new-k3xq.
func newName(name, what string) string {
	const longest = 200 // engines take 253 or more
	return name[:min(len(name), longest)] + "-whittle-" + what + "-" + strings.ToLower(rand.Text()[:4])
}

// gapEnds now, if there is one.
func (p *passage) gapEnds() {
	if !p.shut.IsZero() {
		p.result.Gap += time.Since(p.shut)
		p.shut = time.Time{}
	}
}
