// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/whittle-sec/whittle/internal/syscalls"
)

// Floor is what a container runtime was seen to need after it loaded the filter, joined over Runs starts.
type Floor struct {
	Runtime         string // digest of its executable
	NoNewPrivileges bool
	Calls           map[syscalls.ABI]syscalls.Set
	Runs            int
}

// MergeFloor adds one start to what is known of the runtime: a Go runtime's calls differ from start to start, so only
// their union can be relied on. workload is the ID of what was started; it may be empty.
func (s *Store) MergeFloor(ctx context.Context, f Floor, workload string) error {
	const doing = "store runtime floor"
	if f.Runtime == "" || len(f.Runtime) > 256 || len(workload) > 256 {
		return fmt.Errorf("%s: %w: the runtime has no digest", doing, ErrInvalid)
	}
	now := s.now().UnixMicro()
	return s.change(ctx, doing, func(tx *sql.Tx) error {
		for abi, calls := range f.Calls {
			known, err := floorOf(ctx, tx, f, abi)
			if err != nil {
				return err
			}
			names, err := json.Marshal(calls.Union(known).Names(abi))
			if err != nil {
				return err
			}
			_, err = tx.ExecContext(ctx, `INSERT INTO floors (runtime, no_new_privs, abi, calls, runs, updated) VALUES (?, ?, ?, ?, ?, ?)
				ON CONFLICT DO UPDATE SET calls = excluded.calls, runs = runs + excluded.runs, updated = excluded.updated`,
				f.Runtime, f.NoNewPrivileges, abi.String(), string(names), max(f.Runs, 1), now)
			if err != nil {
				return err
			}
		}
		if workload == "" {
			return nil
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO floor_workloads (workload, runtime, no_new_privs) VALUES (?, ?, ?)
			ON CONFLICT DO NOTHING`, workload, f.Runtime, f.NoNewPrivileges)
		return err
	})
}

func floorOf(ctx context.Context, tx *sql.Tx, f Floor, abi syscalls.ABI) (syscalls.Set, error) {
	var names []byte
	err := tx.QueryRowContext(ctx, `SELECT calls FROM floors WHERE runtime = ? AND no_new_privs = ? AND abi = ?`,
		f.Runtime, f.NoNewPrivileges, abi.String()).Scan(&names)
	if errors.Is(err, sql.ErrNoRows) {
		return syscalls.Set{}, nil
	}
	if err != nil {
		return syscalls.Set{}, err
	}
	return parseNames(abi, names)
}

func parseNames(abi syscalls.ABI, data []byte) (set syscalls.Set, err error) {
	var names []string
	if err := json.Unmarshal(data, &names); err != nil {
		return set, fmt.Errorf("read stored calls: %w", err)
	}
	for _, name := range names {
		nr, ok := syscalls.Number(abi, name)
		if !ok {
			return set, fmt.Errorf("read stored calls: unknown system call %q of %v", name, abi)
		}
		set.Add(nr)
	}
	return set, nil
}

// Floor of a runtime; ErrNotFound when none of its starts was observed.
func (s *Store) Floor(ctx context.Context, runtime string, noNewPrivileges bool) (Floor, error) {
	f := Floor{Runtime: runtime, NoNewPrivileges: noNewPrivileges, Calls: make(map[syscalls.ABI]syscalls.Set)}
	err := s.floors(ctx, &f, `WHERE runtime = ? AND no_new_privs = ?`, runtime, noNewPrivileges)
	if err == nil && len(f.Calls) == 0 {
		err = ErrNotFound
	}
	return f, s.wrap("read runtime floor", err)
}

// FloorOfWorkload joins the floors of every runtime that started the workload with this ID. It is empty, without
// an error, when none was observed.
func (s *Store) FloorOfWorkload(ctx context.Context, id string) (map[syscalls.ABI]syscalls.Set, error) {
	f := Floor{Calls: make(map[syscalls.ABI]syscalls.Set)}
	err := s.floors(ctx, &f, `WHERE (runtime, no_new_privs) IN (SELECT runtime, no_new_privs FROM floor_workloads WHERE workload = ?)`, id)
	return f.Calls, s.wrap("read runtime floor", err)
}

func (s *Store) floors(ctx context.Context, f *Floor, where string, args ...any) error {
	return s.each(ctx, func(scan func(...any) error) error {
		var abi syscalls.ABI
		var abiName string
		var names []byte
		var runs int
		err := scan(&abiName, &names, &runs)
		if err == nil {
			abi, err = syscalls.ParseABI(abiName)
		}
		if err != nil {
			return err
		}
		set, err := parseNames(abi, names)
		f.Calls[abi] = f.Calls[abi].Union(set)
		f.Runs = max(f.Runs, runs)
		return err
	}, `SELECT abi, calls, runs FROM floors `+where, args...)
}
