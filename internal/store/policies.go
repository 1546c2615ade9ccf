// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/workload"
)

// Revision of a workload's policy: what it allows changed. Revisions are numbered from 1 without gaps; old ones are
// dropped past MaxRevisions.
type Revision struct {
	Number   int       `json:"revision"`
	Created  time.Time `json:"created"`
	Updated  time.Time `json:"updated"` // later than Created when only evidence was added since
	Reason   string    `json:"reason"`
	Calls    int       `json:"calls"` // distinct calls over all ABIs, lanes and phases
	Complete bool      `json:"complete"`
}

// Entry of the list of workloads, with the newest revision of its policy.
type Entry struct {
	ID       string            `json:"id"`
	Name     string            `json:"name"`
	Workload workload.Workload `json:"workload"`
	Revision Revision          `json:"revision"`
}

// PutPolicy stores p as the policy of its workload and returns its revision. It is a new revision when p allows something
// else than the newest one or became complete or partial; otherwise the newest revision takes p's evidence and keeps
// its number and reason.
func (s *Store) PutPolicy(ctx context.Context, p policy.Policy, reason string) (revision int, err error) {
	doing := "store policy of " + p.Workload.Name()
	data, err := policy.Encode(p)
	if err != nil {
		return 0, fmt.Errorf("%s: %w: %w", doing, ErrInvalid, err)
	}
	// What cannot be read back is not stored.
	if p, err = policy.Read(bytes.NewReader(data)); err != nil {
		return 0, fmt.Errorf("%s: %w: %w", doing, ErrInvalid, err)
	}
	err = s.change(ctx, doing, func(tx *sql.Tx) error {
		revision, err = s.putPolicy(ctx, tx, p, data, workload.Printable(reason, 256))
		return err
	})
	if err != nil {
		return 0, err
	}
	s.known.changed(p.Workload.ID())
	return revision, nil
}

func (s *Store) putPolicy(ctx context.Context, tx *sql.Tx, p policy.Policy, data []byte, reason string) (int, error) {
	id, now := p.Workload.ID(), s.now().UnixMicro()
	if err := putWorkload(ctx, tx, p.Workload, now); err != nil {
		return 0, err
	}
	var revision int
	var newest []byte
	err := tx.QueryRowContext(ctx, `SELECT revision, policy FROM policies WHERE workload = ? ORDER BY revision DESC LIMIT 1`, id).
		Scan(&revision, &newest)
	switch {
	case errors.Is(err, sql.ErrNoRows):
	case err != nil:
		return 0, err
	case bytes.Equal(newest, data):
		return revision, nil
	default:
		old, err := policy.Read(bytes.NewReader(newest))
		if err != nil {
			return 0, fmt.Errorf("read revision %d: %w", revision, err)
		}
		if old.Complete == p.Complete && len(policy.Diff(old, p)) == 0 {
			_, err := tx.ExecContext(ctx, `UPDATE policies SET policy = ?, size = ?, updated = ? WHERE workload = ? AND revision = ?`,
				string(data), len(data), now, id, revision)
			return revision, err
		}
	}
	revision++
	_, err = tx.ExecContext(ctx, `INSERT INTO policies (workload, revision, created, updated, reason, calls, complete, size, policy)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`, id, revision, now, now, reason, countCalls(p), p.Complete, len(data), string(data))
	if err != nil {
		return 0, err
	}
	return revision, pruneRevisions(ctx, tx, id)
}

func putWorkload(ctx context.Context, tx *sql.Tx, w workload.Workload, now int64) error {
	command, err := json.Marshal(w.Command)
	if err != nil {
		return err
	}
	// The image's name is not part of the identity: the last one seen is the one that people use now.
	_, err = tx.ExecContext(ctx, `INSERT INTO workloads (id, name, image, digest, command, created) VALUES (?, ?, ?, ?, ?, ?)
		ON CONFLICT (id) DO UPDATE SET name = excluded.name, image = excluded.image
		WHERE name <> excluded.name OR image <> excluded.image`, w.ID(), w.Name(), w.Image, w.Digest, string(command), now)
	return err
}

// pruneRevisions keeps the newest, and those that were handed out as profiles.
func pruneRevisions(ctx context.Context, tx *sql.Tx, id string) error {
	_, err := tx.ExecContext(ctx, `DELETE FROM policies WHERE workload = ?1 AND revision IN (
			SELECT revision FROM (
				SELECT revision, row_number() OVER newest AS n, sum(size) OVER newest AS bytes FROM policies
				WHERE workload = ?1 WINDOW newest AS (ORDER BY revision DESC))
			WHERE n > ?2 OR n > 1 AND bytes > ?3)
		AND revision NOT IN (SELECT revision FROM exports WHERE workload = ?1)`, id, MaxRevisions, maxRevisionBytes)
	return err
}

func countCalls(p policy.Policy) (n int) {
	for _, calls := range p.ABIs {
		n += calls.All().Len()
	}
	return n
}

// Policy is the newest revision of a workload's policy. ref is the workload's ID or name, or a prefix of one of them that fits
// no other workload; the error is ErrNotFound or an *AmbiguousError.
func (s *Store) Policy(ctx context.Context, ref string) (policy.Policy, Revision, error) {
	id, err := s.Resolve(ctx, ref)
	if err != nil {
		return policy.Policy{}, Revision{}, err
	}
	return s.policy(ctx, id, `ORDER BY revision DESC LIMIT 1`)
}

// PolicyAt is an earlier revision of the workload with this ID.
func (s *Store) PolicyAt(ctx context.Context, id string, revision int) (policy.Policy, Revision, error) {
	return s.policy(ctx, id, `AND revision = ?`, revision)
}

const revisionColumns = `revision, created, updated, reason, calls, complete`

func (s *Store) policy(ctx context.Context, id, which string, args ...any) (policy.Policy, Revision, error) {
	doing := "read policy of " + workload.Printable(id, 64)
	var r row
	var data []byte
	err := s.read.QueryRowContext(ctx, `SELECT `+revisionColumns+`, policy FROM policies WHERE workload = ? `+which,
		append([]any{id}, args...)...).Scan(append(r.fields(), &data)...)
	if errors.Is(err, sql.ErrNoRows) {
		return policy.Policy{}, Revision{}, fmt.Errorf("%s: %w", doing, ErrNotFound)
	}
	if err != nil {
		return policy.Policy{}, Revision{}, s.wrap(doing, err)
	}
	p, err := policy.Read(bytes.NewReader(data))
	if err != nil {
		return policy.Policy{}, Revision{}, fmt.Errorf("%s: %w", doing, err)
	}
	return p, r.revision(), nil
}

// row is a Revision as it is stored.
type row struct {
	Revision
	created, updated int64
}

func (r *row) fields() []any {
	return []any{&r.Number, &r.created, &r.updated, &r.Reason, &r.Calls, &r.Complete}
}

func (r *row) revision() Revision {
	r.Created, r.Updated = time.UnixMicro(r.created).UTC(), time.UnixMicro(r.updated).UTC()
	return r.Revision
}

// History of the workload with this ID, oldest first.
func (s *Store) History(ctx context.Context, id string) ([]Revision, error) {
	doing := "read history of " + workload.Printable(id, 64)
	var history []Revision
	err := s.each(ctx, func(scan func(...any) error) error {
		var r row
		if err := scan(r.fields()...); err != nil {
			return err
		}
		history = append(history, r.revision())
		return nil
	}, `SELECT `+revisionColumns+` FROM policies WHERE workload = ? ORDER BY revision`, id)
	if err == nil && len(history) == 0 {
		err = ErrNotFound
	}
	return history, s.wrap(doing, err)
}

// Policies is every workload that has a policy, in the order of their names.
func (s *Store) Policies(ctx context.Context) ([]Entry, error) {
	var entries []Entry
	err := s.each(ctx, func(scan func(...any) error) error {
		var e Entry
		var r row
		var command []byte
		err := scan(append([]any{&e.ID, &e.Name, &e.Workload.Image, &e.Workload.Digest, &command}, r.fields()...)...)
		if err != nil {
			return err
		}
		e.Revision = r.revision()
		entries = append(entries, e)
		return json.Unmarshal(command, &entries[len(entries)-1].Workload.Command)
	}, `SELECT id, name, image, digest, command, p.revision, p.created, p.updated, p.reason, p.calls, p.complete FROM workloads
		JOIN policies AS p ON p.workload = id AND p.revision = (SELECT max(revision) FROM policies WHERE workload = id)
		ORDER BY name, id`)
	return entries, s.wrap("list policies", err)
}

// Resolve a reference to a workload's ID. A whole ID or name wins over a longer one that begins with it.
func (s *Store) Resolve(ctx context.Context, ref string) (id string, err error) {
	doing := fmt.Sprintf("find workload %q", workload.Printable(ref, 64))
	if ref == "" {
		return "", fmt.Errorf("%s: %w", doing, ErrNotFound)
	}
	for _, match := range []string{`id = ?1 OR name = ?1`, `substr(id, 1, length(?1)) = ?1 OR substr(name, 1, length(?1)) = ?1`} {
		var names []string
		err := s.each(ctx, func(scan func(...any) error) error {
			var name string
			if err := scan(&id, &name); err != nil {
				return err
			}
			names = append(names, name+" ("+id+")")
			return nil
		}, `SELECT id, name FROM workloads WHERE `+match+` ORDER BY name, id LIMIT 10`, ref)
		switch {
		case err != nil:
			return "", s.wrap(doing, err)
		case len(names) == 1:
			return id, nil
		case len(names) > 1:
			return "", &AmbiguousError{Ref: ref, Candidates: names}
		}
	}
	return "", fmt.Errorf("%s: %w", doing, ErrNotFound)
}

// each calls fn with every row.
func (s *Store) each(ctx context.Context, fn func(scan func(...any) error) error, query string, args ...any) (err error) {
	rows, err := s.read.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		if err := fn(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}
