// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/whittle-sec/whittle/internal/agent"
	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/hint"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/store"
)

// disk is the stored state without an agent: open for reading, and for writing as long as a write takes.
type disk struct {
	agent.Stored
	dir string
}

// errNothing was ever stored in the state directory.
var errNothing = errors.New("nothing was learned yet")

// openState of a directory for reading.
func openState(dir string) (stored, error) {
	db, err := store.OpenReadOnly(dir)
	if errors.Is(err, store.ErrNotFound) {
		err = hint.Add(fmt.Errorf("no agent runs, and %w: %w", errNothing, err),
			"start one with `sudo whittle agent`, learn from a command with `sudo whittle run -- COMMAND`, or name another --state DIR")
	}
	if err != nil {
		return nil, err
	}
	return disk{agent.Stored{Store: db}, dir}, nil
}

// Import a policy.
func (d disk) Import(ctx context.Context, p policy.Policy, why string) error {
	return writeState(d.dir, func(s agent.Stored) error { return s.Import(ctx, p, why) })
}

// RecordExport of a profile.
func (d disk) RecordExport(ctx context.Context, e api.Export) error {
	return writeState(d.dir, func(s agent.Stored) error { return s.RecordExport(ctx, e) })
}

func writeState(dir string, f func(agent.Stored) error) error {
	db, err := store.Open(dir, time.Now)
	if err != nil {
		return err
	}
	s := agent.Stored{Store: db}
	return errors.Join(f(s), s.Close())
}
