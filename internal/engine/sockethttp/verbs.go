// SPDX-License-Identifier: Apache-2.0

package sockethttp

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/whittle-sec/whittle/internal/engine"
)

const (
	startWithin  = 60 * time.Second // what the runtime may take to create a container, and to delete one
	removeWithin = 20 * time.Second // an engine may take to clean up after one that has ended
	lookEvery    = 50 * time.Millisecond
)

// Seen is what the verbs need to know of a container.
type Seen struct {
	ID     string
	Status string // in the engine's words
	Alive  bool   // it runs, or is paused
	Runs   bool   // or has another process, or is to get one
	// Cleaning tells of one that does not run that its engine is not done with it yet: its name or its address is not free.
	Cleaning bool
	Exit     engine.Exit
}

// Words are what engines differ in where their verbs are concerned.
type Words struct {
	See func(ctx context.Context, id string) (Seen, error)
	// Nameable tells whether an id can stand in a path: a slash or a query in it would ask for something else.
	Nameable func(id string) bool
	Patience string // the key of the seconds that a stop may take: "timeout"
	// AddressTaken tells whether a start was refused because another container has the address.
	AddressTaken func(message string) bool
}

// Verbs begin and end containers, as those of an engine.Maker: Podman's own interface took them over from Docker's. Make them
// with NewVerbs.
type Verbs struct {
	client *Client
	words  Words
}

// NewVerbs of the engine that a client asks.
func NewVerbs(c *Client, w Words) Verbs { return Verbs{c, w} }

// Order a container to do something: what its path ends with. Of an order, the path is filled in.
func (v Verbs) Order(ctx context.Context, id, verb string, o Order) error {
	if !v.words.Nameable(id) {
		return v.client.Unknown("")
	}
	o.Path = "/containers/" + url.PathEscape(id)
	if verb != "" {
		o.Path += "/" + verb
	}
	_, err := v.client.Send(ctx, o, nil)
	return err
}

func (v Verbs) doing(verb, id string) string {
	return verb + " " + v.client.Name + "'s container " + Printable(id)
}

// Start a container that is created, initialized or has ended.
func (v Verbs) Start(ctx context.Context, id string) error {
	err := v.Order(ctx, id, "start", Order{Within: startWithin, Also: []int{http.StatusNotModified}})
	if r := (*Refusal)(nil); errors.As(err, &r) && v.words.AddressTaken(r.Message) {
		err = fmt.Errorf("%w: %w", engine.ErrAddressTaken, err)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", v.doing("start", id), err)
	}
	return nil
}

// Stop returns when there is no process any more.
func (v Verbs) Stop(ctx context.Context, id string, within time.Duration) error {
	seen, err := v.words.See(ctx, id)
	if err == nil && seen.Runs {
		// Engines count whole seconds: rather one too many.
		seconds := int((max(within, 0) + time.Second - 1) / time.Second)
		err = v.Order(ctx, seen.ID, "stop", Order{
			Query:  url.Values{v.words.Patience: {strconv.Itoa(seconds)}},
			Within: time.Duration(seconds)*time.Second + startWithin,
			Also:   []int{http.StatusNotModified},
		})
		if errors.Is(err, engine.ErrUnknownContainer) { // one with --rm is removed when it ends
			err = nil
		}
		if err == nil {
			err = v.ended(ctx, seen.ID)
		}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", v.doing("stop", id), err)
	}
	return nil
}

// ended waits until the engine says that there is no process, and, for a while, until it is done with the container. What it
// does not get done is its matter.
func (v Verbs) ended(ctx context.Context, id string) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for waited := time.Duration(0); ; {
		seen, err := v.words.See(ctx, id)
		if errors.Is(err, engine.ErrUnknownContainer) {
			return nil
		}
		if err != nil {
			return err
		}
		if !seen.Runs {
			if waited += lookEvery; !seen.Cleaning || waited > removeWithin {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: it is still %s: %w", engine.ErrOutcomeUnknown, Printable(seen.Status), ctx.Err())
		case <-tick.C:
		}
	}
}

// Kill sends a signal.
func (v Verbs) Kill(ctx context.Context, id string, signal int) error {
	err := v.Order(ctx, id, "kill", Order{Query: url.Values{"signal": {strconv.Itoa(signal)}}})
	if err != nil {
		return fmt.Errorf("%s: %w", v.doing(fmt.Sprintf("send signal %d to", signal), id), err)
	}
	return nil
}

// Remove a container that does not run. Its volumes stay: those of a predecessor are its successor's.
func (v Verbs) Remove(ctx context.Context, id string) error {
	seen, err := v.words.See(ctx, id)
	switch {
	case err != nil:
	case seen.Alive:
		err = engine.ErrRunning
	default:
		err = v.Order(ctx, seen.ID, "", Order{
			Method: http.MethodDelete,
			Query:  url.Values{"force": {"false"}, "v": {"false"}},
			Within: startWithin,
		})
		if Refused(err, http.StatusConflict) { // it has --rm, and is being removed
			err = v.gone(ctx, seen.ID, err)
		}
	}
	if err != nil && !errors.Is(err, engine.ErrUnknownContainer) {
		return fmt.Errorf("%s: %w", v.doing("remove", id), err)
	}
	return nil
}

// gone waits for a removal that is under way; else it returns why.
func (v Verbs) gone(ctx context.Context, id string, why error) error {
	for range removeWithin / lookEvery {
		if _, err := v.words.See(ctx, id); errors.Is(err, engine.ErrUnknownContainer) {
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
func (v Verbs) Rename(ctx context.Context, id, name string) error {
	err := v.Order(ctx, id, "rename", Order{Query: url.Values{"name": {name}}})
	if Refused(err, http.StatusConflict) {
		err = fmt.Errorf("%w: %w", engine.ErrNameTaken, err)
	}
	if err != nil {
		return fmt.Errorf("%s to %s: %w", v.doing("rename", id), Printable(name), err)
	}
	return nil
}

// Exit of a container that has ended.
func (v Verbs) Exit(ctx context.Context, id string) (engine.Exit, error) {
	seen, err := v.words.See(ctx, id)
	if err == nil && seen.Alive {
		err = engine.ErrRunning
	}
	if err != nil {
		return engine.Exit{}, fmt.Errorf("ask how %s's container %s ended: %w", v.client.Name, Printable(id), err)
	}
	return seen.Exit, nil
}
