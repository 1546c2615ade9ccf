// SPDX-License-Identifier: Apache-2.0

package podman

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/engine/sockethttp"
)

// What the runtime may take to create a container, and to delete one.
const (
	startWithin  = 60 * time.Second
	healthWithin = 5 * time.Minute  // the check has a time limit of its own
	removeWithin = 20 * time.Second // an engine may take to remove one that has ended
	lookEvery    = 50 * time.Millisecond
)

var (
	_ engine.Maker         = (*Podman)(nil)
	_ engine.Initializer   = (*Podman)(nil)
	_ engine.HealthChecker = (*Podman)(nil)
)

// order what a container is asked to do, by its id or name.
func (p *Podman) order(ctx context.Context, id, verb string, o sockethttp.Order) (int, error) {
	if !nameable(id) {
		return 0, p.client.Unknown("")
	}
	o.Path = "/containers/" + url.PathEscape(id)
	if verb != "" {
		o.Path += "/" + verb
	}
	return p.client.Send(ctx, o, nil)
}

// nameable ids are what may stand in a path.
func nameable(id string) bool { return id != "" && strings.Trim(id, ".") != "" }

// Init does everything for a container but its service's exec.
func (p *Podman) Init(ctx context.Context, id string) error {
	_, err := p.order(ctx, id, "init", sockethttp.Order{Within: startWithin, Also: []int{http.StatusNotModified}})
	if err != nil {
		return fmt.Errorf("initialize podman's container %s: %w", printable(id), err)
	}
	return nil
}

// Start a container that is created, initialized or has ended.
func (p *Podman) Start(ctx context.Context, id string) error {
	_, err := p.order(ctx, id, "start", sockethttp.Order{Within: startWithin, Also: []int{http.StatusNotModified}})
	if addressTaken(err) {
		err = fmt.Errorf("%w: %w", engine.ErrAddressTaken, err)
	}
	if err != nil {
		return fmt.Errorf("start podman's container %s: %w", printable(id), err)
	}
	return nil
}

// Stop returns when there is no process any more.
func (p *Podman) Stop(ctx context.Context, id string, within time.Duration) error {
	doing := "stop podman's container " + printable(id)
	in, err := p.inspection(ctx, id)
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	if in.State.Pid == 0 && !state(in.State.Status).Alive() { // an initialized one has a process, and is not alive
		return nil
	}
	// Podman counts whole seconds: rather one too many.
	seconds := int((max(within, 0) + time.Second - 1) / time.Second)
	_, err = p.order(ctx, in.ID, "stop", sockethttp.Order{
		Query:  url.Values{"timeout": {strconv.Itoa(seconds)}},
		Within: time.Duration(seconds)*time.Second + startWithin,
		Also:   []int{http.StatusNotModified},
	})
	if err != nil && !errors.Is(err, engine.ErrUnknownContainer) { // one with --rm is removed when it ends
		return fmt.Errorf("%s: %w", doing, err)
	}
	if err := p.ended(ctx, in.ID); err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	return nil
}

// ended waits until Podman says that there is no process, and, with --rm, no container: its name is free then. A removal that
// fails is Podman's matter.
func (p *Podman) ended(ctx context.Context, id string) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for removed := 0; ; {
		in, err := p.inspection(ctx, id)
		if errors.Is(err, engine.ErrUnknownContainer) {
			return nil
		}
		if err != nil {
			return err
		}
		if s := in.State.Status; !state(s).Alive() && s != "initialized" {
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
func (p *Podman) Kill(ctx context.Context, id string, signal int) error {
	_, err := p.order(ctx, id, "kill", sockethttp.Order{Query: url.Values{"signal": {strconv.Itoa(signal)}}})
	if err != nil {
		return fmt.Errorf("send signal %d to podman's container %s: %w", signal, printable(id), err)
	}
	return nil
}

// Remove a container that does not run. Its volumes stay: those of a predecessor are its successor's.
func (p *Podman) Remove(ctx context.Context, id string) error {
	doing := "remove podman's container " + printable(id)
	in, err := p.inspection(ctx, id)
	if errors.Is(err, engine.ErrUnknownContainer) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	if state(in.State.Status).Alive() {
		return fmt.Errorf("%s: %w", doing, engine.ErrRunning)
	}
	_, err = p.order(ctx, in.ID, "", sockethttp.Order{
		Method: http.MethodDelete,
		Query:  url.Values{"force": {"false"}, "v": {"false"}},
		Within: startWithin,
	})
	if err != nil && !errors.Is(err, engine.ErrUnknownContainer) {
		return fmt.Errorf("%s: %w", doing, err)
	}
	return nil
}

// Rename a container, running or not.
func (p *Podman) Rename(ctx context.Context, id, name string) error {
	doing := fmt.Sprintf("rename podman's container %s to %s", printable(id), printable(name))
	_, err := p.order(ctx, id, "rename", sockethttp.Order{Query: url.Values{"name": {name}}})
	if sockethttp.Refused(err, http.StatusConflict) {
		return fmt.Errorf("%s: %w: %w", doing, engine.ErrNameTaken, err)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	return nil
}

// Exit of a container that has ended.
func (p *Podman) Exit(ctx context.Context, id string) (engine.Exit, error) {
	doing := "ask how podman's container " + printable(id) + " ended"
	in, err := p.inspection(ctx, id)
	if err != nil {
		return engine.Exit{}, fmt.Errorf("%s: %w", doing, err)
	}
	if state(in.State.Status).Alive() {
		return engine.Exit{}, fmt.Errorf("%s: %w", doing, engine.ErrRunning)
	}
	s := in.State
	return engine.Exit{Code: s.ExitCode, OOM: s.OOMKilled, At: s.FinishedAt, Error: printable(s.Error)}, nil
}

// Logs are the last lines of what it wrote.
func (p *Podman) Logs(ctx context.Context, id string, lines int) (string, error) {
	if !nameable(id) {
		return "", p.client.Unknown("")
	}
	// libpod frames the output of a terminal, too.
	text, err := p.client.Logs(ctx, "/containers/"+url.PathEscape(id), lines, true)
	if err != nil {
		return "", fmt.Errorf("read the logs of podman's container %s: %w", printable(id), err)
	}
	return text, nil
}

// Health runs the health check and waits for it.
func (p *Podman) Health(ctx context.Context, id string) (has, healthy bool, err error) {
	doing := "check the health of podman's container " + printable(id)
	in, err := p.inspection(ctx, id)
	if err != nil {
		return false, false, fmt.Errorf("%s: %w", doing, err)
	}
	if !in.Config.Healthcheck.set() {
		return false, false, nil
	}
	var said struct{ Status string }
	_, err = p.client.Send(ctx, sockethttp.Order{
		Method: http.MethodGet,
		Path:   "/containers/" + in.ID + "/healthcheck",
		Within: healthWithin,
	}, &said)
	if err != nil {
		return true, false, fmt.Errorf("%s: %w", doing, err)
	}
	return true, said.Status == "healthy", nil
}
