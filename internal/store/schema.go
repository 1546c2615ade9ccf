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
