// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/whittle-sec/whittle/internal/workload"
)

// Export is a profile that was handed out: a container that starts under it is recognised by its fingerprint.
type Export struct {
	Fingerprint string
	Workload    string // ID
	Revision    int
	Created     time.Time
}

// PutExport remembers that a profile with this fingerprint was made from a revision of a workload's policy. The last one
// counts. The error is ErrNotFound, wrapped, for a workload without a policy.
func (s *Store) PutExport(ctx context.Context, fingerprint, id string, revision int) error {
	const doing = "store export"
	if fingerprint == "" || len(fingerprint) > 256 {
		return fmt.Errorf("%s: %w: bad fingerprint", doing, ErrInvalid)
	}
	return s.change(ctx, doing, func(tx *sql.Tx) error {
		var known int
		err := tx.QueryRowContext(ctx, `SELECT 1 FROM policies WHERE workload = ? AND revision = ?`, id, revision).Scan(&known)
		if errors.Is(err, sql.ErrNoRows) {
			return fmt.Errorf("revision %d of %s: %w", revision, workload.Printable(id, 64), ErrNotFound)
		}
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `INSERT OR REPLACE INTO exports (fingerprint, workload, revision, created) VALUES (?, ?, ?, ?)`,
			fingerprint, id, revision, s.now().UnixMicro())
		return err
	})
}

// Export with this fingerprint, or ErrNotFound.
func (s *Store) Export(ctx context.Context, fingerprint string) (Export, error) {
	exports, err := s.exports(ctx, `WHERE fingerprint = ?`, fingerprint)
	if err == nil && len(exports) == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return Export{}, s.wrap("read export", err)
	}
	return exports[0], nil
}

// Exports is all of them, in the order of their fingerprints.
func (s *Store) Exports(ctx context.Context) ([]Export, error) {
	exports, err := s.exports(ctx, `ORDER BY fingerprint`)
	return exports, s.wrap("read exports", err)
}

func (s *Store) exports(ctx context.Context, which string, args ...any) (exports []Export, err error) {
	err = s.each(ctx, func(scan func(...any) error) error {
		var e Export
		var at int64
		if err := scan(&e.Fingerprint, &e.Workload, &e.Revision, &at); err != nil {
			return err
		}
		e.Created = time.UnixMicro(at).UTC()
		exports = append(exports, e)
		return nil
	}, `SELECT fingerprint, workload, revision, created FROM exports `+which, args...)
	return exports, err
}
