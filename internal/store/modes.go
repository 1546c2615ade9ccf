// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"database/sql"
	"fmt"
	"math"
	"time"

	"github.com/whittle-sec/whittle/internal/workload"
)

// Mode of a workload: what was set, and what that has come to.
type Mode struct {
	Workload    string // ID
	Mode        string // auto, learn, shadow, enforce or off
	By, Why     string
	Since       time.Time // zero means now
	Now         string    // learn, shadow, enforce or off
	ShadowSince time.Time // zero: not in shadow
	WouldDeny   uint64    // in this time of shadow
}

// PutMode replaces what is known of the workload's mode. The error is ErrInvalid, wrapped, for a mode that there is not.
func (s *Store) PutMode(ctx context.Context, m Mode) error {
	doing := "store mode of " + workload.Printable(m.Workload, 64)
	if m.Workload == "" || len(m.Workload) > 256 {
		return fmt.Errorf("%s: %w: bad workload", doing, ErrInvalid)
	}
	now := validModes[m.Now] && m.Now != "auto"
	if !validModes[m.Mode] || !now {
		return fmt.Errorf("%s: %w: mode %q, now %q", doing, ErrInvalid, workload.Printable(m.Mode, 20), workload.Printable(m.Now, 20))
	}
	if m.Since.IsZero() {
		m.Since = s.now()
	}
	return s.change(ctx, doing, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT OR REPLACE INTO modes (workload, mode, set_by, why, since, now, shadow_since, would_deny)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?)`, m.Workload, m.Mode, workload.Printable(m.By, 256), workload.Printable(m.Why, 256),
			m.Since.UnixMicro(), m.Now, micro(m.ShadowSince), int64(min(m.WouldDeny, math.MaxInt64)))
		return err
	})
}

var validModes = map[string]bool{"auto": true, "learn": true, "shadow": true, "enforce": true, "off": true}

// Mode of the workload with this ID; ErrNotFound, wrapped, when none was stored.
func (s *Store) Mode(ctx context.Context, id string) (Mode, error) {
	modes, err := s.modes(ctx, `WHERE workload = ?`, id)
	if err == nil && len(modes) == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return Mode{}, s.wrap("read mode of "+workload.Printable(id, 64), err)
	}
	return modes[0], nil
}

// Modes is all that were stored, in the order of their workloads.
func (s *Store) Modes(ctx context.Context) ([]Mode, error) {
	modes, err := s.modes(ctx, `ORDER BY workload`)
	return modes, s.wrap("read modes", err)
}

func (s *Store) modes(ctx context.Context, which string, args ...any) (modes []Mode, err error) {
	err = s.each(ctx, func(scan func(...any) error) error {
		var m Mode
		var since, shadow, denied int64
		if err := scan(&m.Workload, &m.Mode, &m.By, &m.Why, &since, &m.Now, &shadow, &denied); err != nil {
			return err
		}
		m.Since, m.ShadowSince, m.WouldDeny = time.UnixMicro(since).UTC(), fromMicro(shadow), uint64(max(denied, 0))
		modes = append(modes, m)
		return nil
	}, `SELECT workload, mode, set_by, why, since, now, shadow_since, would_deny FROM modes `+which, args...)
	return modes, err
}

// micro is 0 for the zero time, and not some moment of the year 1.
func micro(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func fromMicro(at int64) time.Time {
	if at == 0 {
		return time.Time{}
	}
	return time.UnixMicro(at).UTC()
}
