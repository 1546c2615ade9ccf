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

// Oracle is the hardened twin that a workload has, in the JSON of package oracle.
type Oracle struct {
	Workload string // ID
	Spec     json.RawMessage
	Updated  time.Time
}

// maxBlob bounds each JSON text of oracles and loops: a loop's grows with the calls that were learned.
const maxBlob = 8 << 20

// checkBlob says what is wrong with a JSON text that is to be kept for a workload.
func checkBlob(id string, text []byte) error {
	if id == "" || len(id) > 256 {
		return fmt.Errorf("%w: bad workload", ErrInvalid)
	}
	if len(text) > maxBlob || !json.Valid(text) {
		return fmt.Errorf("%w: %d bytes that are too many or no JSON", ErrInvalid, len(text))
	}
	return nil
}

// PutOracle replaces the workload's oracle.
func (s *Store) PutOracle(ctx context.Context, id string, spec []byte) error {
	doing := "store oracle of " + workload.Printable(id, 64)
	if err := checkBlob(id, spec); err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	return s.change(ctx, doing, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT OR REPLACE INTO oracles (workload, spec, updated) VALUES (?, ?, ?)`,
			id, string(spec), s.now().UnixMicro())
		return err
	})
}

// DeleteOracle of a workload; what its loops taught and their records stay. The error is ErrNotFound, wrapped, when
// there is none.
func (s *Store) DeleteOracle(ctx context.Context, id string) error {
	return s.change(ctx, "remove oracle of "+workload.Printable(id, 64), func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, `DELETE FROM oracles WHERE workload = ?`, id)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return ErrNotFound
		}
		return nil
	})
}

// Oracles of all workloads, in the order of their IDs.
func (s *Store) Oracles(ctx context.Context) (all []Oracle, err error) {
	err = s.each(ctx, func(scan func(...any) error) error {
		var o Oracle
		var spec string
		var updated int64
		if err := scan(&o.Workload, &spec, &updated); err != nil {
			return err
		}
		o.Spec, o.Updated = json.RawMessage(spec), time.UnixMicro(updated).UTC()
		all = append(all, o)
		return nil
	}, `SELECT workload, spec, updated FROM oracles ORDER BY workload`)
	return all, s.wrap("read oracles", err)
}
