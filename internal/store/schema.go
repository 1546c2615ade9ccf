// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"database/sql"
	"fmt"
)

// migrations[i] brings a database from user_version i to i+1. One that was released is never edited. Times are Unix
// microseconds; policies are the JSON of docs/formats.md.
var migrations = []string{`
CREATE TABLE workloads (
	id       TEXT PRIMARY KEY,
	name     TEXT NOT NULL,
	image    TEXT NOT NULL,
	digest   TEXT NOT NULL,
	command  TEXT NOT NULL, -- JSON list
	created  INTEGER NOT NULL
) STRICT;

CREATE TABLE policies (
	workload TEXT NOT NULL REFERENCES workloads(id),
	revision INTEGER NOT NULL,
	created  INTEGER NOT NULL,
	updated  INTEGER NOT NULL, -- later than created when only the evidence changed
	reason   TEXT NOT NULL,
	calls    INTEGER NOT NULL, -- distinct calls over all ABIs and lanes
	complete INTEGER NOT NULL,
	size     INTEGER NOT NULL, -- bytes of policy, to prune without reading it
	policy   TEXT NOT NULL,
	PRIMARY KEY (workload, revision)
) STRICT;

CREATE TABLE floors (
	runtime      TEXT NOT NULL, -- digest of the executable
	no_new_privs INTEGER NOT NULL,
	abi          TEXT NOT NULL,
	calls        TEXT NOT NULL, -- JSON list of names
	runs         INTEGER NOT NULL,
	updated      INTEGER NOT NULL,
	PRIMARY KEY (runtime, no_new_privs, abi)
) STRICT;

-- Which workloads were started by which runtime.
CREATE TABLE floor_workloads (
	workload     TEXT NOT NULL,
	runtime      TEXT NOT NULL,
	no_new_privs INTEGER NOT NULL,
	PRIMARY KEY (workload, runtime, no_new_privs)
) STRICT;

CREATE TABLE exports (
	fingerprint TEXT PRIMARY KEY,
	workload    TEXT NOT NULL REFERENCES workloads(id),
	revision    INTEGER NOT NULL,
	created     INTEGER NOT NULL
) STRICT;
CREATE INDEX exports_workload ON exports (workload, revision);

CREATE TABLE journal (
	id        INTEGER PRIMARY KEY AUTOINCREMENT, -- never reused, so a follower misses nothing
	time      INTEGER NOT NULL,
	kind      TEXT NOT NULL,
	workload  TEXT NOT NULL,
	container TEXT NOT NULL,
	call      TEXT NOT NULL,
	text      TEXT NOT NULL,
	data      TEXT NOT NULL -- JSON, or empty
) STRICT;
CREATE INDEX journal_workload ON journal (workload, id);
CREATE INDEX journal_kind ON journal (kind, id);
`, `
-- No reference to workloads: a mode may be set before anything was learned.
CREATE TABLE modes (
	workload     TEXT PRIMARY KEY,
	mode         TEXT NOT NULL CHECK (mode IN ('auto', 'learn', 'shadow', 'enforce', 'off')), -- as set
	set_by       TEXT NOT NULL,
	why          TEXT NOT NULL,
	since        INTEGER NOT NULL,
	now          TEXT NOT NULL CHECK (now IN ('learn', 'shadow', 'enforce', 'off')), -- what auto has come to
	shadow_since INTEGER NOT NULL, -- 0: not in shadow
	would_deny   INTEGER NOT NULL
) STRICT;

-- One row for each change of what the kernel enforces on a container: filters are added, never taken away, so the rows of a
-- container that are 'done' are its stack, in their order.
CREATE TABLE supervised (
	seq         INTEGER PRIMARY KEY AUTOINCREMENT,
	engine      TEXT NOT NULL,
	id          TEXT NOT NULL,
	name        TEXT NOT NULL,
	workload    TEXT NOT NULL,
	pid         INTEGER NOT NULL, -- of its init; 0 before it has one
	started     INTEGER NOT NULL, -- that process's start, in clock ticks since boot: a pid alone may be another's by now
	boot        TEXT NOT NULL, -- the kernel's boot_id: no filter outlives the kernel
	how         TEXT NOT NULL, -- start, attach, seal
	mode        TEXT NOT NULL,
	revision    INTEGER NOT NULL,
	fingerprint TEXT NOT NULL, -- of the filter
	state       TEXT NOT NULL CHECK (state IN ('intended', 'done', 'gone')),
	updated     INTEGER NOT NULL
) STRICT;
CREATE INDEX supervised_container ON supervised (engine, id, state);
CREATE INDEX supervised_state ON supervised (state, seq);
`, `
-- No reference to workloads: an oracle may be set before anything was learned.
CREATE TABLE oracles (
	workload TEXT PRIMARY KEY,
	spec     TEXT NOT NULL, -- JSON
	updated  INTEGER NOT NULL
) STRICT;

-- How far each workload is between production and its oracle.
CREATE TABLE loops (
	workload TEXT PRIMARY KEY,
	saved    TEXT NOT NULL, -- JSON
	updated  INTEGER NOT NULL
) STRICT;

CREATE TABLE loop_records (
	workload TEXT NOT NULL,
	id       INTEGER NOT NULL, -- 1, 2 … within the workload
	started  INTEGER NOT NULL,
	record   TEXT NOT NULL, -- JSON
	PRIMARY KEY (workload, id)
) STRICT;
CREATE INDEX loop_records_started ON loop_records (started);
`}

func (s *Store) version(db *sql.DB) (v int, err error) {
	err = db.QueryRow("PRAGMA user_version").Scan(&v)
	return v, s.wrap("read schema version", err)
}

// migrate is one transaction for each step: a crash leaves the version before or the version after.
func (s *Store) migrate() error {
	version, err := s.version(s.write)
	if err != nil {
		return err
	}
	if version > len(migrations) || version < 0 {
		return fmt.Errorf("open database: %w", &SchemaError{File: s.file, Got: version, Want: len(migrations)})
	}
	for ; version < len(migrations); version++ {
		err := s.change(context.Background(), "bring database up to date", func(tx *sql.Tx) error {
			if _, err := tx.Exec(migrations[version]); err != nil {
				return err
			}
			// PRAGMA takes no parameters.
			_, err := tx.Exec(fmt.Sprintf("PRAGMA user_version = %d", version+1))
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}
