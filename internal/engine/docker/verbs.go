// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/engine/sockethttp"
)

const (
	startWithin  = 60 * time.Second // what the runtime may take
	removeWithin = 20 * time.Second // an engine may take to remove one that has ended
	lookEvery    = 50 * time.Millisecond
)

var (
	_ engine.Maker         = (*Docker)(nil)
	_ engine.HealthChecker = (*Docker)(nil)
)

// order what a container is asked to do, by its id or name.
func (d *Docker) order(ctx context.Context, id, verb string, o sockethttp.Order) error {
	if !nameable(id) {
		return d.client.Unknown("")
	}
	o.Path = "/containers/" + id
	if verb != "" {
		o.Path += "/" + verb
	}
	_, err := d.client.Send(ctx, o, nil)
	return err
}

// Start a container that is created or has ended.
func (d *Docker) Start(ctx context.Context, id string) error {
	err := d.order(ctx, id, "start", sockethttp.Order{Within: startWithin, Also: []int{http.StatusNotModified}})
	if addressTaken(err) {
		err = fmt.Errorf("%w: %w", engine.ErrAddressTaken, err)
	}
	if err != nil {
		return fmt.Errorf("start docker's container %s: %w", printable(id), err)
	}
	return nil
}

// Stop returns when there is no process any more.
func (d *Docker) Stop(ctx context.Context, id string, within time.Duration) error {
	doing := "stop docker's container " + printable(id)
	in, err := d.inspection(ctx, id)
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	if !in.runs() {
		return nil
	}
	// Docker counts whole seconds: rather one too many.
	seconds := int((max(within, 0) + time.Second - 1) / time.Second)
	err = d.order(ctx, in.ID, "stop", sockethttp.Order{
		Query:  url.Values{"t": {strconv.Itoa(seconds)}},
		Within: time.Duration(seconds)*time.Second + startWithin,
		Also:   []int{http.StatusNotModified},
	})
	if err != nil && !errors.Is(err, engine.ErrUnknownContainer) { // one with --rm is removed when it ends
		return fmt.Errorf("%s: %w", doing, err)
	}
	if err := d.ended(ctx, in.ID); err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	return nil
}

// runs tells whether there is a process, or is to be one again: a restart policy waits before it starts it.
func (in inspection) runs() bool {
	return in.State.Pid > 0 || in.State.Restarting || state(in.State.Status).Alive()
}

// ended waits until Docker says that there is no process, and, with --rm, no container: its name is free then. A removal that
// fails is Docker's matter.
func (d *Docker) ended(ctx context.Context, id string) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for removed := 0; ; {
		in, err := d.inspection(ctx, id)
		if errors.Is(err, engine.ErrUnknownContainer) {
			return nil
		}
		if err != nil {
			return err
		}
		if !in.runs() {
			if removed++; !in.HostConfig.AutoRemove || time.Duration(removed)*lookEvery > removeWithin {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: it is still %s: %w", engine.ErrOutcomeUnknown, printable(in.State.Status), ctx.Err())
		case <-tick.C:
		}
	}
}

// Kill sends a signal.
func (d *Docker) Kill(ctx context.Context, id string, signal int) error {
	err := d.order(ctx, id, "kill", sockethttp.Order{Query: url.Values{"signal": {strconv.Itoa(signal)}}})
	if err != nil {
		return fmt.Errorf("send signal %d to docker's container %s: %w", signal, printable(id), err)
	}
	return nil
}

// Remove a container that does not run. Its volumes stay: those of a predecessor are its successor's.
func (d *Docker) Remove(ctx context.Context, id string) error {
	doing := "remove docker's container " + printable(id)
	in, err := d.inspection(ctx, id)
	if errors.Is(err, engine.ErrUnknownContainer) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	if in.runs() {
		return fmt.Errorf("%s: %w", doing, engine.ErrRunning)
	}
	err = d.order(ctx, in.ID, "", sockethttp.Order{
		Method: http.MethodDelete,
		Query:  url.Values{"force": {"false"}, "v": {"false"}},
		Within: startWithin,
	})
	if sockethttp.Refused(err, http.StatusConflict) { // it has --rm, and is being removed
		return d.gone(ctx, in.ID, fmt.Errorf("%s: %w", doing, err))
	}
	if err != nil && !errors.Is(err, engine.ErrUnknownContainer) {
		return fmt.Errorf("%s: %w", doing, err)
	}
	return nil
}

// gone waits for a removal that is under way; else it returns why.
func (d *Docker) gone(ctx context.Context, id string, why error) error {
	for range removeWithin / lookEvery {
		if _, err := d.inspection(ctx, id); errors.Is(err, engine.ErrUnknownContainer) {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(why, ctx.Err())
		case <-time.After(lookEvery):
		}
	}
	return why
}

// Rename a container, running or not.
func (d *Docker) Rename(ctx context.Context, id, name string) error {
	doing := fmt.Sprintf("rename docker's container %s to %s", printable(id), printable(name))
	err := d.order(ctx, id, "rename", sockethttp.Order{Query: url.Values{"name": {name}}})
	if sockethttp.Refused(err, http.StatusConflict) {
		return fmt.Errorf("%s: %w: %w", doing, engine.ErrNameTaken, err)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	return nil
}

// Exit of a container that has ended.
func (d *Docker) Exit(ctx context.Context, id string) (engine.Exit, error) {
	doing := "ask how docker's container " + printable(id) + " ended"
	in, err := d.inspection(ctx, id)
	if err != nil {
		return engine.Exit{}, fmt.Errorf("%s: %w", doing, err)
	}
	if in.runs() {
		return engine.Exit{}, fmt.Errorf("%s: %w", doing, engine.ErrRunning)
	}
	s := in.State
	return engine.Exit{Code: s.ExitCode, OOM: s.OOMKilled, At: s.FinishedAt, Error: printable(s.Error)}, nil
}

// Logs are the last lines of what it wrote.
func (d *Docker) Logs(ctx context.Context, id string, lines int) (string, error) {
	doing := "read the logs of docker's container " + printable(id)
	in, err := d.inspection(ctx, id)
	if err != nil {
		return "", fmt.Errorf("%s: %w", doing, err)
	}
	text, err := d.client.Logs(ctx, "/containers/"+in.ID, lines, !in.Config.Tty)
	if err != nil {
		return "", fmt.Errorf("%s: %w", doing, err)
	}
	return text, nil
}

// Health is what Docker's last check said; it makes them by itself.
func (d *Docker) Health(ctx context.Context, id string) (has, healthy bool, err error) {
	in, err := d.inspection(ctx, id)
	if err != nil {
		return false, false, fmt.Errorf("ask for the health of docker's container %s: %w", printable(id), err)
	}
	return in.Config.Healthcheck.set(), in.State.Health.Status == "healthy", nil
}
