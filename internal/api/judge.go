// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"fmt"
	"time"

	"github.com/whittle-sec/whittle/internal/hint"
	"github.com/whittle-sec/whittle/internal/judge"
)

// Waiting is a held call that waits for a person, with everyone in its container who asks the same.
type Waiting struct {
	ID           int64      `json:"id"`        // never used again while the agent runs
	Container    string     `json:"container"` // its ID
	Name         string     `json:"name"`      // of the container
	Engine       string     `json:"engine"`
	Workload     string     `json:"workload"` // ID
	WorkloadName string     `json:"workload_name"`
	Case         judge.Case `json:"case"` // the first one's
	Since        time.Time  `json:"since"`
	Until        time.Time  `json:"until"` // it is refused then
	Count        int        `json:"count"` // threads that wait with this question
	Comm         string     `json:"comm"`  // of the first
	PID          int        `json:"pid"`   // of the first
}

// Judgement is a person's answer. The server writes the caller's name into By where it is empty.
type Judgement struct {
	ID     int64  `json:"id"`
	Allow  bool   `json:"allow"`
	Always bool   `json:"always,omitempty"` // the policy says so from now on
	By     string `json:"by,omitempty"`
	Why    string `json:"why,omitempty"`
}

// Judged is what became of a Judgement.
type Judged struct {
	Waiting  Waiting      `json:"waiting"`         // what was answered
	Answered int          `json:"answered"`        // threads that got the answer; the others had gone before
	Grant    *GrantResult `json:"grant,omitempty"` // what Always did to the policy
	Notes    []string     `json:"notes,omitempty"`
}

// JudgeDesk is where a person answers held calls. A Backend may be one; see ModeLister for how it is found, and who may
// do what.
type JudgeDesk interface {
	// Waiting calls, the oldest first.
	Waiting(ctx context.Context) ([]Waiting, error)
	// Settle answers everyone who waits with the question. NotWaiting is its error for one that nobody waits with.
	Settle(ctx context.Context, by Peer, j Judgement) (Judged, error)
}

// NotWaiting is the error for an ID that is unknown, was answered, or whose time is over.
func NotWaiting(id int64) error {
	return hint.Add(fmt.Errorf("%w: nothing waits under %d: it was answered, refused when its time was over, or its caller is gone", ErrNotFound, id),
		"whittle judge list shows what waits; whittle event list --kind judged, what became of it")
}

// FindEvent of the journal by its ID.
func FindEvent(ctx context.Context, r interface {
	Events(ctx context.Context, q EventQuery) ([]Event, error)
}, id int64) (Event, error) {
	if id > 0 {
		events, err := r.Events(ctx, EventQuery{After: id - 1, Limit: 1, Oldest: true})
		if err != nil {
			return Event{}, err
		}
		if len(events) == 1 && events[0].ID == id {
			return events[0], nil
		}
	}
	return Event{}, hint.Add(fmt.Errorf("%w: event %d", ErrNotFound, id), "whittle event list shows the latest events; old ones are deleted")
}

// Waiting calls, the oldest first.
func (c *Client) Waiting(ctx context.Context) (w []Waiting, err error) {
	return w, c.get(ctx, "judge", nil, &w)
}

// Settle a waiting call.
func (c *Client) Settle(ctx context.Context, j Judgement) (out Judged, err error) {
	return out, c.ask(ctx, "judge", j, &out)
}

func (j Judgement) check() error {
	if j.ID <= 0 {
		return invalid("%d is no ID of a waiting call", j.ID)
	}
	return nil
}
