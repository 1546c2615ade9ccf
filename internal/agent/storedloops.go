// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"

	"github.com/whittle-sec/whittle/internal/store"
)

// PutOracle of a workload.
func (s Stored) PutOracle(ctx context.Context, workloadID string, spec []byte) error {
	return translate(s.Store.PutOracle(ctx, workloadID, spec))
}

// DeleteOracle of a workload.
func (s Stored) DeleteOracle(ctx context.Context, workloadID string) error {
	return translate(s.Store.DeleteOracle(ctx, workloadID))
}

// Oracles of all workloads.
func (s Stored) Oracles(ctx context.Context) ([]store.Oracle, error) { return s.Store.Oracles(ctx) }

// PutLoop of a workload, with its record.
func (s Stored) PutLoop(ctx context.Context, workloadID string, saved []byte, records ...store.LoopRecord) error {
	return translate(s.Store.PutLoop(ctx, workloadID, saved, records...))
}

// DeleteLoop of a workload.
func (s Stored) DeleteLoop(ctx context.Context, workloadID string) error {
	return translate(s.Store.DeleteLoop(ctx, workloadID))
}

// Loops of all workloads.
func (s Stored) Loops(ctx context.Context) ([]store.Loop, error) { return s.Store.Loops(ctx) }

// LoopRecords of a workload, or of all, the newest first.
func (s Stored) LoopRecords(ctx context.Context, workloadID string, limit int) ([]store.LoopRecord, error) {
	return s.Store.LoopRecords(ctx, workloadID, limit)
}
