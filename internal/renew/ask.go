// SPDX-License-Identifier: Apache-2.0

package renew

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/whittle-sec/whittle/internal/engine"
)

// How engines are asked: they may be away for a moment (a socket that starts its service, a daemon that is restarted), and
// answer late.

const (
	answerTime = 30 * time.Second // for one answer; Podman takes up to 2 s on a busy machine
	makeTime   = 5 * time.Minute  // a storage without layers copies the image
	awayTime   = 15 * time.Second // for which an engine that is not there is asked again
	noticeTime = 5 * time.Second  // for an engine to notice that a container has ended
	lastWords  = 5                // lines of a successor's output that are told when it fails
)

// ask an engine, again while it is away.
func (p *passage) ask(ctx context.Context, f func(context.Context) error) error {
	return p.askFor(ctx, answerTime, f)
}

func (p *passage) askFor(ctx context.Context, long time.Duration, f func(context.Context) error) error {
	end := time.Now().Add(cmp.Or(p.Away, awayTime))
	for {
		one, cancel := context.WithTimeout(ctx, long)
		err := f(one)
		cancel()
		if !errors.Is(err, engine.ErrUnavailable) || errors.Is(err, engine.ErrOutcomeUnknown) || time.Now().After(end) || ctx.Err() != nil {
			return err
		}
		pause(ctx, 100*time.Millisecond)
	}
}

// inspect a container; an unknown one is no error, and has no id.
func (p *passage) inspect(ctx context.Context, id string) (c engine.Container, err error) {
	err = p.ask(ctx, func(ctx context.Context) (err error) {
		c, err = p.Engine.Inspect(ctx, id)
		return err
	})
	if errors.Is(err, engine.ErrUnknownContainer) {
		return engine.Container{}, nil
	}
	return c, err
}

// launch a container, and see that it was.
func (p *passage) launch(ctx context.Context, id string) error {
	err := p.ask(ctx, func(ctx context.Context) error { return p.Engine.Start(ctx, id) })
	if errors.Is(err, engine.ErrOutcomeUnknown) {
		err = p.settled(ctx, id, true, err)
	}
	return err
}

// halt a container, and see that it has no process.
func (p *passage) halt(ctx context.Context, id string, within time.Duration) error {
	stop := p.Engine.Stop
	if id == p.head.Old && !p.oldAlive() {
		stop = func(ctx context.Context, id string, within time.Duration) error {
			return StopForGood(ctx, p.Engine, id, within)
		}
	}
	err := p.askFor(ctx, within+answerTime, func(ctx context.Context) error { return stop(ctx, id, within) })
	switch {
	case errors.Is(err, engine.ErrUnknownContainer):
		return nil
	case errors.Is(err, engine.ErrOutcomeUnknown):
		return p.settled(ctx, id, false, err)
	}
	return err
}

// settled waits until a container runs, or does not, after an engine that did not answer was asked for it.
func (p *passage) settled(ctx context.Context, id string, alive bool, late error) error {
	for end := time.Now().Add(answerTime); time.Now().Before(end); pause(ctx, 100*time.Millisecond) {
		c, err := p.inspect(ctx, id)
		if err != nil {
			return errors.Join(late, err)
		}
		if c.State.Alive() == alive && c.State != engine.Created {
			return nil
		}
	}
	return late
}

// epitaph says how a container ended, with the last that it wrote.
func (p *passage) epitaph(ctx context.Context, id string) string {
	if p.head.Plan.Unit != "" {
		return p.unitEnded()
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerTime)
	defer cancel()
	text := "it ended"
	exit, err := p.Engine.Exit(ctx, id)
	// The kernel has told us before it told the engine.
	for end := time.Now().Add(noticeTime); errors.Is(err, engine.ErrRunning) && time.Now().Before(end); exit, err = p.Engine.Exit(ctx, id) {
		pause(ctx, 20*time.Millisecond)
	}
	switch {
	case err != nil:
		text += ", its engine does not say how: " + err.Error()
	case exit.OOM:
		text += " because it was out of memory"
	case exit.Error != "":
		text += ": " + exit.Error
	default:
		text += fmt.Sprintf(" with status %d", exit.Code)
	}
	return text + p.lastWords(ctx, id)
}

// lastWords of a container, for the end of a sentence.
func (p *passage) lastWords(ctx context.Context, id string) string {
	logs, err := p.Engine.Logs(ctx, id, lastWords)
	if logs = strings.TrimSpace(logs); err != nil || logs == "" {
		return "; it wrote nothing"
	}
	const most = 1500
	if len(logs) > most {
		logs = "…" + logs[len(logs)-most:]
	}
	return "; it wrote: " + strings.Join(strings.Split(logs, "\n"), " | ")
}
