// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"github.com/whittle-sec/whittle/internal/workload"
)

// MaxLoopRecords are kept of each workload. The oldest goes first.
const MaxLoopRecords = 500

// Loop is how far a workload is between production and its oracle, in the JSON of package loop.
type Loop struct {
	Workload string // ID
	Saved    json.RawMessage
	Updated  time.Time
}

// LoopRecord is one loop of a workload, for people.
type LoopRecord struct {
	Workload string // ID
	ID       int64  // 1, 2 … within the workload, given by the loop
	Started  time.Time
	Record   json.RawMessage // in the JSON of package loop
}

// PutLoop replaces the workload's state, and in the same transaction adds the records, or replaces those of the same ID: a
// crash never leaves a record that is under way with a state that knows nothing of it.
func (s *Store) PutLoop(ctx context.Context, id string, saved []byte, records ...LoopRecord) error {
	doing := "store loop of " + workload.Printable(id, 64)
	if err := checkBlob(id, saved); err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	for _, r := range records {
		if err := checkBlob(r.Workload, r.Record); err != nil {
			return fmt.Errorf("%s: record: %w", doing, err)
		}
		if r.Workload != id || r.ID <= 0 {
			return fmt.Errorf("%s: %w: record %d of %s", doing, ErrInvalid, r.ID, workload.Printable(r.Workload, 64))
		}
	}
	return s.change(ctx, doing, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT OR REPLACE INTO loops (workload, saved, updated) VALUES (?, ?, ?)`,
			id, string(saved), s.now().UnixMicro())
		if err != nil {
			return err
		}
		return putLoopRecords(ctx, tx, records)
	})
}

func putLoopRecords(ctx context.Context, tx *sql.Tx, records []LoopRecord) error {
	for _, r := range records {
		_, err := tx.ExecContext(ctx, `INSERT OR REPLACE INTO loop_records (workload, id, started, record) VALUES (?, ?, ?, ?)`,
			r.Workload, r.ID, micro(r.Started), string(r.Record))
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `DELETE FROM loop_records WHERE workload = ?1 AND id <=
			(SELECT id FROM loop_records WHERE workload = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)`, r.Workload, MaxLoopRecords)
		if err != nil {
			return err
		}
	}
	return nil
}

// DeleteLoop of a workload that has no oracle any more. Its records stay. Deleting again does nothing.
func (s *Store) DeleteLoop(ctx context.Context, id string) error {
	return s.change(ctx, "remove loop of "+workload.Printable(id, 64), func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `DELETE FROM loops WHERE workload = ?`, id)
		return err
	})
}

// Loops of all workloads, in the order of their IDs: what is to be looked at after a start.
func (s *Store) Loops(ctx context.Context) (all []Loop, err error) {
	err = s.each(ctx, func(scan func(...any) error) error {
		var l Loop
		var saved string
		var updated int64
		if err := scan(&l.Workload, &saved, &updated); err != nil {
			return err
		}
		l.Saved, l.Updated = json.RawMessage(saved), time.UnixMicro(updated).UTC()
		all = append(all, l)
		return nil
	}, `SELECT workload, saved, updated FROM loops ORDER BY workload`)
	return all, s.wrap("read loops", err)
}

// LoopRecords of a workload, or of all for "", the newest first; at most limit, or MaxLoopRecords for 0.
func (s *Store) LoopRecords(ctx context.Context, id string, limit int) (all []LoopRecord, err error) {
	if limit <= 0 || limit > MaxLoopRecords {
		limit = MaxLoopRecords
	}
	err = s.each(ctx, func(scan func(...any) error) error {
		var r LoopRecord
		var record string
		var started int64
		if err := scan(&r.Workload, &r.ID, &started, &record); err != nil {
			return err
		}
		r.Started, r.Record = fromMicro(started), json.RawMessage(record)
		all = append(all, r)
		return nil
	}, `SELECT workload, id, started, record FROM loop_records WHERE ?1 = '' OR workload = ?1
		ORDER BY started DESC, id DESC LIMIT ?2`, id, limit)
	return all, s.wrap("read loop records", err)
}
