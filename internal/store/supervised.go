// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/whittle-sec/whittle/internal/workload"
)

// SupervisionState is how far a change of what the kernel enforces has come.
type SupervisionState string

const (
	// Intended changes may or may not be in the kernel: whoever reads one after a crash has to look.
	Intended SupervisionState = "intended"
	Done     SupervisionState = "done"
	// Gone is for containers that ended, and for changes that were not made.
	Gone SupervisionState = "gone"
)

// maxGone is how many rows of what is no more are kept, to be looked at.
const maxGone = 1000

// Supervised is one change of what the kernel enforces on a container. Filters are added and never taken away: what is
// Done of a container, in the order of Seq, is its stack.
type Supervised struct {
	Seq         int64 // given by IntendSupervision, ascending
	Engine, ID  string
	Name        string
	Workload    string // ID
	PID         int    // of its init; 0 before it has one
	Started     uint64 // of that process, in clock ticks since boot: a pid alone may be another's by now
	Boot        string // the kernel's boot_id: no filter outlives the kernel
	How         string // start, attach, seal
	Mode        string // shadow, enforce
	Revision    int    // of the policy
	Fingerprint string // of the filter
	State       SupervisionState
	Updated     time.Time
}

// IntendSupervision records a change that is about to be made. When it returns nil the record is on the disk, and only
// then may the kernel be touched.
func (s *Store) IntendSupervision(ctx context.Context, v Supervised) (seq int64, err error) {
	doing := "record what is intended for " + workload.Printable(v.ID, 64)
	if v.Engine == "" || v.ID == "" || v.How == "" || v.Fingerprint == "" || v.PID < 0 || v.Revision < 0 {
		return 0, fmt.Errorf("%s: %w: engine, id, how and fingerprint are needed", doing, ErrInvalid)
	}
	for _, text := range []string{v.Engine, v.ID, v.Workload, v.Boot, v.How, v.Mode, v.Fingerprint} {
		if len(text) > 256 {
			return 0, fmt.Errorf("%s: %w: a name of %d bytes", doing, ErrInvalid, len(text))
		}
	}
	err = s.change(ctx, doing, func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, `INSERT INTO supervised
			(engine, id, name, workload, pid, started, boot, how, mode, revision, fingerprint, state, updated)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'intended', ?)`,
			v.Engine, v.ID, workload.Printable(v.Name, 256), v.Workload, v.PID, int64(v.Started), v.Boot, v.How, v.Mode,
			v.Revision, v.Fingerprint, s.now().UnixMicro())
		if err != nil {
			return err
		}
		seq, err = res.LastInsertId()
		return err
	})
	if err != nil {
		return 0, err
	}
	return seq, nil
}

// ConfirmSupervision records that the change is in the kernel, and of which process; pid 0 keeps what was intended.
// Confirming again does no harm. The error is ErrNotFound, wrapped, when the container has ended meanwhile.
func (s *Store) ConfirmSupervision(ctx context.Context, seq int64, pid int, started uint64) error {
	return s.supervision(ctx, fmt.Sprintf("confirm change %d", seq), `UPDATE supervised SET state = 'done', updated = ?1,
		started = iif(?3 > 0, ?4, started), pid = iif(?3 > 0, ?3, pid)
		WHERE seq = ?2 AND state <> 'gone'`, seq, pid, int64(started))
}

// AbandonSupervision records that an intended change was not made.
func (s *Store) AbandonSupervision(ctx context.Context, seq int64) error {
	return s.supervision(ctx, fmt.Sprintf("abandon change %d", seq), `UPDATE supervised SET state = 'gone', updated = ?1
		WHERE seq = ?2 AND state = 'intended'`, seq)
}

// supervision updates the one row of a change: ?1 is now, ?2 its number.
func (s *Store) supervision(ctx context.Context, doing, query string, seq int64, more ...any) error {
	return s.change(ctx, doing, func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, query, append([]any{s.now().UnixMicro(), seq}, more...)...)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return fmt.Errorf("no such change is under way: %w", ErrNotFound)
		}
		return pruneGone(ctx, tx)
	})
}

// SetSupervisedMode of a container: no filter changes with it, the answers do.
func (s *Store) SetSupervisedMode(ctx context.Context, engine, id, mode string) error {
	return s.change(ctx, "store mode of "+workload.Printable(id, 64), func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE supervised SET mode = ?, updated = ? WHERE engine = ? AND id = ? AND state <> 'gone'`,
			workload.Printable(mode, 20), s.now().UnixMicro(), engine, id)
		return err
	})
}

// EndSupervision of a container that is no more. Ending again does nothing.
func (s *Store) EndSupervision(ctx context.Context, engine, id string) error {
	return s.change(ctx, "end supervision of "+workload.Printable(id, 64), func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE supervised SET state = 'gone', updated = ? WHERE engine = ? AND id = ? AND state <> 'gone'`,
			s.now().UnixMicro(), engine, id)
		if err != nil {
			return err
		}
		return pruneGone(ctx, tx)
	})
}

func pruneGone(ctx context.Context, tx *sql.Tx) error {
	_, err := tx.ExecContext(ctx, `DELETE FROM supervised WHERE state = 'gone' AND seq <=
		(SELECT seq FROM supervised WHERE state = 'gone' ORDER BY seq DESC LIMIT 1 OFFSET ?)`, maxGone)
	return err
}

// Supervised is every change that is intended or done, in the order in which they were made: what is to be compared with the
// kernel after a start.
func (s *Store) Supervised(ctx context.Context) (all []Supervised, err error) {
	err = s.each(ctx, func(scan func(...any) error) error {
		var v Supervised
		var started, updated int64
		err := scan(&v.Seq, &v.Engine, &v.ID, &v.Name, &v.Workload, &v.PID, &started, &v.Boot, &v.How, &v.Mode, &v.Revision,
			&v.Fingerprint, &v.State, &updated)
		if err != nil {
			return err
		}
		v.Started, v.Updated = uint64(started), time.UnixMicro(updated).UTC()
		all = append(all, v)
		return nil
	}, `SELECT seq, engine, id, name, workload, pid, started, boot, how, mode, revision, fingerprint, state, updated
		FROM supervised WHERE state <> 'gone' ORDER BY seq`)
	return all, s.wrap("read what is supervised", err)
}
