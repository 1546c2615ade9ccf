// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/engine"
	"golang.org/x/sys/unix"
)

const (
	maxBackoff = 30 * time.Second
	// maxProfile bounds a profile that a container's configuration points to.
	maxProfile = 4 << 20
	// maxStarts events wait to be looked at; the next listing finds what did not fit.
	maxStarts = 1024
)

// discover containers that no hook told of, until ctx is done. An engine that goes away is asked again.
func (a *Agent) discover(ctx context.Context, e engine.Engine) {
	for backoff := time.Second; ctx.Err() == nil; backoff = min(2*backoff, maxBackoff) {
		err := a.follow(ctx, e, func() { backoff = time.Second })
		if ctx.Err() != nil {
			return
		}
		text := "it went away; trying again"
		if err != nil {
			text = err.Error()
		}
		_ = a.ask(ctx, func(m *model) error { m.problem(e.Name(), text); return nil })
		wait := time.NewTimer(backoff)
		select {
		case <-ctx.Done():
		case <-wait.C:
		}
		wait.Stop()
	}
}

// follow one connection to an engine: list what runs, then look at each that starts or gets another name.
func (a *Agent) follow(ctx context.Context, e engine.Engine, fine func()) error {
	w, ok := e.(engine.Watcher)
	if !ok {
		return a.list(ctx, e)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	starts := make(chan string, maxStarts)
	failed := make(chan error, 1)
	a.start(func() {
		err := w.Watch(ctx, func(ev engine.Event) {
			id := ev.ID
			if ev.Kind == engine.Die {
				return // ends are seen by pidfd
			}
			select {
			case starts <- id: // "" for Ready: list
			default:
			}
		})
		failed <- err
	})
	for {
		select {
		case err := <-failed:
			return err
		case id := <-starts:
			if err := a.look(ctx, e, id); err != nil {
				cancel()
				<-failed
				return err
			}
			fine()
			_ = a.ask(ctx, func(m *model) error { m.problem(e.Name(), ""); return nil })
		}
	}
}

// look at one container, or at all of them when id is empty.
func (a *Agent) look(ctx context.Context, e engine.Engine, id string) error {
	if id == "" {
		return a.list(ctx, e)
	}
	c, err := e.Inspect(ctx, id)
	if errors.Is(err, engine.ErrUnknownContainer) {
		return nil // it has ended
	}
	if err != nil {
		return err
	}
	a.found(ctx, c)
	return nil
}

func (a *Agent) list(ctx context.Context, e engine.Engine) error {
	containers, err := e.List(ctx)
	for _, c := range containers {
		a.found(ctx, c)
	}
	if len(containers) > 0 && !errors.Is(err, engine.ErrUnavailable) && err != nil {
		a.Log.Warn("some containers could not be described", "err", err)
		return nil
	}
	return err
}

// found a container through its engine. It is late: it was started before it was found.
func (a *Agent) found(ctx context.Context, c engine.Container) {
	if !c.State.Alive() || c.PID <= 0 {
		return
	}
	r := api.Registration{Container: c}
	profile, err := profileAt(c.Seccomp)
	if err != nil {
		a.Log.Warn("a container's profile cannot be read", "container", c.ID, "err", err)
	}
	r.Profile = profile
	err = a.ask(ctx, func(m *model) error { return m.register(r, 0, true) })
	if err != nil && ctx.Err() == nil {
		a.Log.Error("register a container", "container", c.ID, "err", err)
	}
}

// profileAt reads the profile that a container was given, which may have changed since.
func profileAt(path string) ([]byte, error) {
	if path == "" || path == engine.SeccompDefault || path == engine.SeccompUnconfined {
		return nil, nil
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // a pipe must not keep us waiting
	if err != nil {
		return nil, fmt.Errorf("open profile: %w", err)
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, fmt.Errorf("profile %s is not a file", path)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxProfile+1))
	if err != nil {
		return nil, fmt.Errorf("read profile: %w", err)
	}
	if len(data) > maxProfile {
		return nil, fmt.Errorf("profile %s has more than %d bytes", path, maxProfile)
	}
	return data, nil
}
