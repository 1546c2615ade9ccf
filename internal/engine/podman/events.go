// SPDX-License-Identifier: Apache-2.0

package podman

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
func (p *Podman) Watch(ctx context.Context, f func(engine.Event)) error {
	// Podman sends the answer's header before it has opened its log, so events of these milliseconds would be lost:
	// ask for those since now, which Podman rounds to seconds, and leave out the ones before.
	since := time.Now()
	query := url.Values{
		"stream":  {"true"},
		"since":   {strconv.FormatInt(since.Unix(), 10)},
		"filters": {`{"type":["container"],"event":["start","died"]}`},
	}
	response, err := p.open(ctx, "/events", query)
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return fmt.Errorf("watch podman's containers: %w", err)
	}
	defer response.Body.Close()
	f(engine.Event{Kind: engine.Ready, Time: since})
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, maxEvent)
	for lines.Scan() {
		event, ok, err := parseEvent(lines.Bytes())
		if err != nil {
			return fmt.Errorf("watch podman's containers: %w", err)
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
		return fmt.Errorf("watch podman's containers: an event has more than %d bytes: %w", maxEvent, engine.ErrIncompatible)
	}
	if err == nil {
		err = errors.New("it closed the stream")
	}
	err = fmt.Errorf("watch podman's containers: %w: %w", engine.ErrUnavailable, err)
	return hint.Add(err, fmt.Sprintf(startHint, p.socket))
}

// parseEvent reads one line of the stream. Podman 3 and 4 call the end of a container "died", Podman 5 calls it "die" for
// Docker's clients; ok is false for what is neither start nor end.
func parseEvent(line []byte) (event engine.Event, ok bool, err error) {
	if len(line) == 0 {
		return event, false, nil
	}
	var in struct {
		Type, Action, Status string
		Actor                struct{ ID string }
		ID                   string `json:"id"`
		TimeNano             int64  `json:"timeNano"`
	}
	if err := json.Unmarshal(line, &in); err != nil {
		return event, false, fmt.Errorf("%w: %w", engine.ErrIncompatible, err)
	}
	if in.Type != "" && in.Type != "container" {
		return event, false, nil
	}
	what := in.Action
	if what == "" {
		what = in.Status
	}
	switch what {
	case "start":
		event.Kind = engine.Start
	case "died", "die":
		event.Kind = engine.Die
	default:
		return event, false, nil
	}
	event.ID, event.Time = in.Actor.ID, time.Unix(0, in.TimeNano)
	if event.ID == "" {
		event.ID = in.ID
	}
	if event.ID == "" {
		return event, false, fmt.Errorf("an event without a container: %w", engine.ErrIncompatible)
	}
	return event, true, nil
}
