// SPDX-License-Identifier: Apache-2.0

package sockethttp

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"time"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/hint"
)

// Watch the events of a stream with one JSON value a line, at "/events", until ctx is done. The query is the adapter's,
// without a time. parse reads a line; its ok is false for what is neither start nor end.
//
// Engines send the answer's header before they listen to themselves, so events of these milliseconds would be lost: it asks
// for those since now, which they round to seconds, and leaves out the ones before.
func (c *Client) Watch(ctx context.Context, query url.Values, parse func([]byte) (engine.Event, bool, error), f func(engine.Event)) error {
	if err := c.watch(ctx, query, parse, f); err != nil && ctx.Err() == nil {
		return fmt.Errorf("watch %s's containers: %w", c.Name, err)
	}
	return nil
}

func (c *Client) watch(ctx context.Context, query url.Values, parse func([]byte) (engine.Event, bool, error), f func(engine.Event)) error {
	since := time.Now()
	query.Set("since", strconv.FormatInt(since.Unix(), 10))
	answer, err := c.open(ctx, "/events", query)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	f(engine.Event{Kind: engine.Ready, Time: since})
	lines := bufio.NewScanner(answer.Body)
	lines.Buffer(nil, maxEvent)
	for lines.Scan() {
		if len(lines.Bytes()) == 0 {
			continue
		}
		event, ok, err := parse(lines.Bytes())
		if err != nil {
			return err
		}
		if ok && event.ID == "" {
			return fmt.Errorf("an event without a container: %w", engine.ErrIncompatible)
		}
		if ok && !event.Time.Before(since) {
			f(event)
		}
	}
	err = lines.Err()
	if errors.Is(err, bufio.ErrTooLong) {
		return fmt.Errorf("an event has more than %d bytes: %w", maxEvent, engine.ErrIncompatible)
	}
	if err == nil {
		err = errors.New("it closed the stream")
	}
	return hint.Add(fmt.Errorf("%w: %w", engine.ErrUnavailable, err), c.Start)
}
