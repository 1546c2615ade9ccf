// SPDX-License-Identifier: Apache-2.0

// Package store keeps policies, their history, runtime floors, exported profiles, modes, what is supervised, oracles, loops and
// the journal in one SQLite database. It does not judge what it keeps, and it never deletes a database that it cannot read.
//
// A method that writes returns nil only when SQLite has synced the transaction to the disk (WAL with synchronous=FULL), so
// what was reported as stored survives kill -9, a full disk and a power cut. One process writes at a time; others read.
package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	_ "modernc.org/sqlite" // the driver "sqlite"

	"github.com/whittle-sec/whittle/internal/hint"
)

const (
	databaseName = "whittle.db"
	lockName     = "lock"
)

// Limits of what is kept. The oldest goes first.
const (
	MaxEvents        = 50_000   // rows of the journal
	MaxRevisions     = 100      // of one workload, besides those that were exported
	maxRevisionBytes = 32 << 20 // of one workload's policies together
)

// Store of one state directory. Its methods may be called by several goroutines.
type Store struct {
	file      string
	now       func() time.Time
	lock      *os.File // nil when read-only
	write     *sql.DB  // one connection; nil when read-only
	read      *sql.DB
	maxEvents int64
	closed    sync.Once
	known     known
}

// Open the state directory for writing; it is made, readable by its owner only, if it is not there. The error is
// a *LockedError when another process has it open, a *CorruptError when the database cannot be read, and a
// *SchemaError when a newer Whittle wrote it.
func Open(dir string, now func() time.Time) (*Store, error) {
	if err := makePrivate(dir); err != nil {
		return nil, fmt.Errorf("open state directory: %w", err)
	}
	lock, err := acquire(filepath.Join(dir, lockName))
	if err != nil {
		return nil, fmt.Errorf("open state directory: %w", err)
	}
	s := &Store{file: filepath.Join(dir, databaseName), now: now, lock: lock, maxEvents: MaxEvents}
	if err := s.openForWriting(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Store) openForWriting() error {
	// SQLite gives its WAL the mode of the database, so it only has to be right here.
	f, err := os.OpenFile(s.file, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("open database: %w", err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("open database: %w", err)
	}
	s.write = connect(s.file, 1, "journal_mode(wal)", "synchronous(full)", "foreign_keys(1)")
	if err := s.check(); err != nil {
		return err
	}
	if err := s.migrate(); err != nil {
		return err
	}
	s.read = connect(s.file, 2, "query_only(1)")
	return nil
}

// OpenReadOnly reads what another process may be writing. It does not lock, make or change anything but the recovery that
// SQLite owes after a crash. The error is ErrNotFound, wrapped, when nothing was ever stored in dir.
func OpenReadOnly(dir string) (*Store, error) {
	s := &Store{file: filepath.Join(dir, databaseName)}
	info, err := os.Stat(s.file)
	if errors.Is(err, os.ErrNotExist) || err == nil && info.Size() == 0 {
		err := fmt.Errorf("read database %s: %w", s.file, ErrNotFound)
		return nil, hint.Add(err, "nothing was learned with this state directory yet")
	}
	if err != nil {
		return nil, fmt.Errorf("read database: %w", err)
	}
	s.read = connect(s.file, 2, "query_only(1)")
	version, err := s.version(s.read)
	if err == nil && version != len(migrations) {
		err = &SchemaError{File: s.file, Got: version, Want: len(migrations)}
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Close waits for running queries and gives the directory free. Closing again does nothing.
func (s *Store) Close() (err error) {
	s.closed.Do(func() { err = s.close() })
	return err
}

func (s *Store) close() error {
	var errs []error
	// The writer last: it then is the last connection, which moves the WAL into the database.
	for _, db := range []*sql.DB{s.read, s.write} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
	}
	return errors.Join(errs...)
}

// connect does not touch the file yet; the first query does.
func connect(file string, connections int, pragmas ...string) *sql.DB {
	// Small caches: the agent has a budget of 40 MB, and policies are read rarely.
	query := url.Values{"mode": {"rw"}, "_txlock": {"immediate"}, "_pragma": {"busy_timeout(5000)", "cache_size(-512)"}}
	for _, p := range pragmas {
		query.Add("_pragma", p)
	}
	dsn := url.URL{Scheme: "file", OmitHost: true, Path: file, RawQuery: query.Encode()}
	db, err := sql.Open("sqlite", dsn.String())
	if err != nil {
		panic(err) // only for a driver that is not registered
	}
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections)
	return db
}

// check finds damage before anything is built on it. It reads the whole database, which the limits keep small.
func (s *Store) check() error {
	var result string
	if err := s.write.QueryRow("PRAGMA quick_check(1)").Scan(&result); err != nil {
		return s.wrap("check database", err)
	}
	if result != "ok" {
		return fmt.Errorf("check database: %w", &CorruptError{File: s.file, Err: errors.New(result)})
	}
	return nil
}

// change runs fn in a transaction that is on the disk when change returns nil.
func (s *Store) change(ctx context.Context, doing string, fn func(*sql.Tx) error) error {
	if s.write == nil {
		return fmt.Errorf("%s: %w", doing, ErrReadOnly)
	}
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return s.wrap(doing, err)
	}
	if err := fn(tx); err != nil {
		// SQLite rolls back by itself on a full disk, and then says that there is nothing to roll back.
		_ = tx.Rollback()
		return s.wrap(doing, err)
	}
	return s.wrap(doing, tx.Commit())
}

// makePrivate makes dir, or sees to it that nobody else can replace what is in it. It does not change a directory that
// exists: that could be /tmp, given by mistake.
func makePrivate(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return &os.PathError{Op: "stat", Path: dir, Err: err}
	}
	if st.Mode&0o022 != 0 {
		return hint.Add(fmt.Errorf("%s can be written by others (mode %04o)", dir, st.Mode&0o7777),
			"give Whittle a directory of its own, or: chmod 700 "+dir)
	}
	if st.Uid != 0 && int(st.Uid) != os.Geteuid() {
		return hint.Add(fmt.Errorf("%s belongs to user %d", dir, st.Uid), "give Whittle a directory of its own")
	}
	return nil
}

// acquire takes the lock, which the kernel gives back when this process ends in whatever way.
func acquire(file string) (*os.File, error) {
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		locked := &LockedError{Dir: filepath.Dir(file)}
		// The number is for the message only; a torn or old one does no harm.
		_, _ = fmt.Fscanf(f, "%d", &locked.PID)
		return nil, errors.Join(locked, f.Close())
	}
	if err == nil {
		err = f.Truncate(0)
	}
	if err == nil {
		_, err = f.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0)
	}
	if errors.Is(err, unix.ENOSPC) {
		err = nil // the lock holds without the number
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", file, err), f.Close())
	}
	return f, nil
}
