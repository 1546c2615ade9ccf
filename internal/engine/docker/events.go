// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"time"

	"github.com/whittle-sec/whittle/internal/engine"
)

// Watch reports containers that start, die and get another name.
func (d *Docker) Watch(ctx context.Context, f func(engine.Event)) error {
	query := url.Values{"filters": {`{"type":["container"],"event":["start","die","rename"]}`}}
	return d.client.Watch(ctx, query, parseEvent, f)
}

// parseEvent reads one line of the stream; ok is false for anything else.
func parseEvent(line []byte) (event engine.Event, ok bool, err error) {
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
	case "rename":
		event.Kind = engine.Rename
	default:
		return event, false, nil
	}
	event.ID, event.Time = in.Actor.ID, time.Unix(0, in.TimeNano)
	return event, true, nil
}
