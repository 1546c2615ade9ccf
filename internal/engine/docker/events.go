// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"time"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/hint"
)

// Watch reports containers that start and die.
func (d *Docker) Watch(ctx context.Context, f func(engine.Event)) error {
	// Docker sends the answer's header before it listens to itself, so events of these milliseconds would be lost: ask
	// for those since this second, and leave out the ones before.
	since := time.Now()
	query := url.Values{
		"since":   {strconv.FormatInt(since.Unix(), 10)},
		"filters": {`{"type":["container"],"event":["start","die"]}`},
	}
	response, err := d.open(ctx, "/events", query)
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return fmt.Errorf("watch docker's containers: %w", err)
	}
	defer response.Body.Close()
	f(engine.Event{Kind: engine.Ready, Time: since})
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, maxEvent)
	for lines.Scan() {
		event, ok, err := parseEvent(lines.Bytes())
		if err != nil {
			return fmt.Errorf("watch docker's containers: %w", err)
		}
		if ok && !event.Time.Before(since) {
			f(event)
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	err = lines.Err()
	if errors.Is(err, bufio.ErrTooLong) {
		return fmt.Errorf("watch docker's containers: an event has more than %d bytes: %w", maxEvent, engine.ErrIncompatible)
	}
	if err == nil {
		err = errors.New("it closed the stream")
	}
	err = fmt.Errorf("watch docker's containers: %w: %w", engine.ErrUnavailable, err)
	return hint.Add(err, fmt.Sprintf(startHint, d.socket))
}

// parseEvent reads one line of the stream; ok is false for what is neither start nor end.
func parseEvent(line []byte) (event engine.Event, ok bool, err error) {
	if len(line) == 0 {
		return event, false, nil
	}
	var in struct {
		Type, Action string
		Actor        struct{ ID string }
		TimeNano     int64 `json:"timeNano"`
	}
	if err := json.Unmarshal(line, &in); err != nil {
		return event, false, fmt.Errorf("%w: %w", engine.ErrIncompatible, err)
	}
	if in.Type != "" && in.Type != "container" {
		return event, false, nil
	}
	switch in.Action {
	case "start":
		event.Kind = engine.Start
	case "die":
		event.Kind = engine.Die
	default:
		return event, false, nil
	}
	event.ID, event.Time = in.Actor.ID, time.Unix(0, in.TimeNano)
	if event.ID == "" {
		return event, false, fmt.Errorf("an event without a container: %w", engine.ErrIncompatible)
	}
	return event, true, nil
}
