// SPDX-License-Identifier: Apache-2.0

package store

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/whittle-sec/whittle/internal/hint"
	"github.com/whittle-sec/whittle/internal/workload"
)

// Sentinels, always wrapped.
var (
	ErrNotFound  = errors.New("not found")
	ErrAmbiguous = errors.New("ambiguous")
	ErrFull      = errors.New("no space left for the database")
	ErrReadOnly  = errors.New("the store is open for reading only")
	ErrInvalid   = errors.New("cannot be stored")
)

// LockedError is a state directory that another process writes to.
type LockedError struct {
	Dir string
	PID int // 0 when not known
}

func (e *LockedError) Error() string {
	if e.PID == 0 {
		return fmt.Sprintf("%s is in use by another process", e.Dir)
	}
	return fmt.Sprintf("%s is in use by process %d", e.Dir, e.PID)
}

func (e *LockedError) Hint() string {
	return "one agent runs with one state directory: stop the other one, or give this one its own with --state DIR"
}

// CorruptError is a database that SQLite cannot read.
type CorruptError struct {
	File string
	Err  error
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("database %s is damaged: %v", e.File, e.Err)
}
func (e *CorruptError) Unwrap() error { return e.Err }

func (e *CorruptError) Hint() string {
	dir := filepath.Dir(e.File)
	return fmt.Sprintf("nothing was deleted. To keep it and start afresh: mkdir %s/damaged && mv %s* %s/damaged/", dir, e.File, dir)
}

// SchemaError is a database of another version of Whittle.
type SchemaError struct {
	File      string
	Got, Want int
}

func (e *SchemaError) Error() string {
	return fmt.Sprintf("database %s has schema version %d, this whittle knows version %d", e.File, e.Got, e.Want)
}

func (e *SchemaError) Hint() string {
	if e.Got > e.Want {
		return "a newer whittle wrote it: run that one, or give this one its own directory with --state DIR"
	}
	return "the agent of this version brings it up to date when it starts"
}

// AmbiguousError is a reference that fits several workloads. It is ErrAmbiguous.
type AmbiguousError struct {
	Ref        string
	Candidates []string // "NAME (ID)", at most 10
}

func (e *AmbiguousError) Error() string {
	return fmt.Sprintf("workload %q is ambiguous: %s", workload.Printable(e.Ref, 64), strings.Join(e.Candidates, ", "))
}
func (e *AmbiguousError) Is(target error) bool { return target == ErrAmbiguous }
func (e *AmbiguousError) Hint() string         { return "type more of its name or ID" }

// wrap says what was being done, and gives SQLite's errors the types that callers branch on.
func (s *Store) wrap(doing string, err error) error {
	if err == nil {
		return nil
	}
	var lite *sqlite.Error
	if !errors.As(err, &lite) {
		return fmt.Errorf("%s: %w", doing, err)
	}
	switch code := lite.Code(); {
	case code&0xff == sqlite3.SQLITE_CORRUPT, code&0xff == sqlite3.SQLITE_NOTADB:
		err = &CorruptError{File: s.file, Err: lite}
	// On a full disk the shared-memory file of the WAL cannot grow either.
	case code&0xff == sqlite3.SQLITE_FULL, code == sqlite3.SQLITE_IOERR_SHMSIZE:
		err = hint.Add(fmt.Errorf("%w (%s): %w", ErrFull, s.file, lite),
			"free some space: nothing that was stored is lost, and what was being stored now is not stored")
	}
	return fmt.Errorf("%s: %w", doing, err)
}
