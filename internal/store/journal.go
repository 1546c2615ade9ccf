// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/whittle-sec/whittle/internal/workload"
)

// Event of the journal.
type Event struct {
	ID        int64           `json:"id"`   // given by AddEvents, ascending
	Time      time.Time       `json:"time"` // zero means now
	Kind      string          `json:"kind"`
	Workload  string          `json:"workload,omitempty"` // ID
	Container string          `json:"container,omitempty"`
	Call      string          `json:"call,omitempty"`
	Text      string          `json:"text"`
	Data      json.RawMessage `json:"data,omitempty"` // machine-readable; its shape depends on Kind
}

// Limits of one event: containers cause events, so neither their number nor their size may grow without end.
const (
	maxText = 1024     // characters; the rest is cut off
	maxData = 16 << 10 // bytes; more is refused
)

// EventFilter selects events. The zero filter is the newest 100.
type EventFilter struct {
	After    int64 // only events with a larger ID
	Workload string
	Kind     string
	Limit    int // 0 means 100; at most 10,000
	// Oldest takes the oldest of those that match instead of the newest, to page on from After.
	Oldest bool
}

// AddEvent is AddEvents for one.
func (s *Store) AddEvent(ctx context.Context, e Event) (id int64, err error) {
	ids, err := s.AddEvents(ctx, []Event{e})
	if err != nil {
		return 0, err
	}
	return ids[0], nil
}

// AddEvents appends all of the events, or none, and returns their IDs. The oldest rows past MaxEvents are dropped.
func (s *Store) AddEvents(ctx context.Context, events []Event) (ids []int64, err error) {
	const doing = "write journal"
	for _, e := range events {
		if len(e.Data) > maxData || len(e.Data) > 0 && !json.Valid(e.Data) {
			return nil, fmt.Errorf("%s: %w: data of %s is not JSON of at most %d bytes", doing, ErrInvalid,
				workload.Printable(e.Kind, 40), maxData)
		}
	}
	err = s.change(ctx, doing, func(tx *sql.Tx) error {
		for _, e := range events {
			id, err := s.addEvent(ctx, tx, e)
			if err != nil {
				return err
			}
			ids = append(ids, id)
		}
		_, err := tx.ExecContext(ctx, `DELETE FROM journal WHERE id <= (SELECT max(id) FROM journal) - ?`, s.maxEvents)
		return err
	})
	if err != nil {
		return nil, err
	}
	return ids, nil
}

func (s *Store) addEvent(ctx context.Context, tx *sql.Tx, e Event) (int64, error) {
	if e.Time.IsZero() {
		e.Time = s.now()
	}
	short := func(text string) string { return workload.Printable(text, 256) }
	res, err := tx.ExecContext(ctx, `INSERT INTO journal (time, kind, workload, container, call, text, data) VALUES (?, ?, ?, ?, ?, ?, ?)`,
		e.Time.UnixMicro(), short(e.Kind), short(e.Workload), short(e.Container), short(e.Call),
		workload.Printable(e.Text, maxText), string(e.Data))
	if err != nil {
		return 0, err
	}
	return res.LastInsertId()
}

// Events that match, in the order of their IDs.
func (s *Store) Events(ctx context.Context, f EventFilter) ([]Event, error) {
	where, args := []string{"id > ?"}, []any{f.After}
	if f.Workload != "" {
		where, args = append(where, "workload = ?"), append(args, f.Workload)
	}
	if f.Kind != "" {
		where, args = append(where, "kind = ?"), append(args, f.Kind)
	}
	order := "DESC"
	if f.Oldest {
		order = "ASC"
	}
	limit := min(f.Limit, 10_000)
	if limit <= 0 {
		limit = 100
	}
	var events []Event
	err := s.each(ctx, func(scan func(...any) error) error {
		var e Event
		var at int64
		var data []byte
		if err := scan(&e.ID, &at, &e.Kind, &e.Workload, &e.Container, &e.Call, &e.Text, &data); err != nil {
			return err
		}
		e.Time = time.UnixMicro(at).UTC()
		if len(data) > 0 {
			e.Data = data
		}
		events = append(events, e)
		return nil
	}, `SELECT id, time, kind, workload, container, call, text, data FROM journal WHERE `+strings.Join(where, " AND ")+
		` ORDER BY id `+order+` LIMIT ?`, append(args, limit)...)
	if !f.Oldest {
		slices.Reverse(events)
	}
	return events, s.wrap("read journal", err)
}
