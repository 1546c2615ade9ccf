// SPDX-License-Identifier: Apache-2.0

package podman

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"time"

	"github.com/whittle-sec/whittle/internal/engine"
)

// Watch reports containers that start, die and get another name.
func (p *Podman) Watch(ctx context.Context, f func(engine.Event)) error {
	query := url.Values{"filters": {`{"type":["container"],"event":["start","died","rename"]}`}, "stream": {"true"}}
	return p.client.Watch(ctx, query, parseEvent, f)
}

// parseEvent reads one line of the stream. Podman 3 and 4 call the end of a container "died", Podman 5 calls it "die" for
// Docker's clients; ok is false for anything else.
func parseEvent(line []byte) (event engine.Event, ok bool, err error) {
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
	case "rename":
		event.Kind = engine.Rename
	default:
		return event, false, nil
	}
	event.ID, event.Time = in.Actor.ID, time.Unix(0, in.TimeNano)
	if event.ID == "" {
		event.ID = in.ID
	}
	return event, true, nil
}
