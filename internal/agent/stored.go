// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/store"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

var _ Store = Stored{}

// Stored is package store in the words of the API. The agent uses it, and commands where no agent runs.
type Stored struct{ Store *store.Store }

// Close the store.
func (s Stored) Close() error { return s.Store.Close() }

// translate gives the store's errors the kinds that the API's clients know.
func translate(err error) error {
	switch {
	case errors.Is(err, store.ErrNotFound):
		return fmt.Errorf("%w%w", err, kindOnly{api.ErrNotFound})
	case errors.Is(err, store.ErrAmbiguous), errors.Is(err, store.ErrInvalid):
		return fmt.Errorf("%w%w", err, kindOnly{api.ErrInvalid})
	}
	return err
}

// kindOnly adds a kind to an error, and no words.
type kindOnly struct{ kind error }

func (k kindOnly) Error() string { return "" }
func (k kindOnly) Unwrap() error { return k.kind }

// Workloads that have a policy.
func (s Stored) Workloads(ctx context.Context) ([]api.Summary, error) {
	entries, err := s.Store.Policies(ctx)
	if err != nil {
		return nil, translate(err)
	}
	all := make([]api.Summary, 0, len(entries))
	for _, e := range entries {
		f, err := s.Store.Facts(ctx, e)
		if errors.Is(err, store.ErrNotFound) {
			continue // it was replaced meanwhile
		}
		if err != nil {
			return nil, translate(err)
		}
		all = append(all, api.Summary{
			ID: e.ID, Name: e.Name, Image: e.Workload.Image, Digest: e.Workload.Digest, Command: e.Workload.Command,
			Complete: e.Revision.Complete, Partial: f.Partial, Settled: f.Settled, Runs: f.Runs, ByPhase: byPhase(f.ByPhase),
			Quarantined: f.Quarantined, Version: e.Revision.Number, Updated: e.Revision.Updated,
		})
	}
	return all, nil
}

// byPhase counts the calls of the service.
func byPhase(calls map[policy.Phase]int) map[string]int {
	counts := make(map[string]int, len(policy.Phases))
	for _, phase := range policy.Phases {
		counts[phase.String()] = calls[phase]
	}
	return counts
}

// Policy of a workload, its newest version.
func (s Stored) Policy(ctx context.Context, ref string) (policy.Policy, error) {
	p, _, err := s.Store.Policy(ctx, ref)
	return p, translate(err)
}

// PolicyVersion of a workload; 0 is the newest.
func (s Stored) PolicyVersion(ctx context.Context, ref string, version int) (policy.Policy, error) {
	if version == 0 {
		return s.Policy(ctx, ref)
	}
	id, err := s.Store.Resolve(ctx, ref)
	if err != nil {
		return policy.Policy{}, translate(err)
	}
	p, _, err := s.Store.PolicyAt(ctx, id, version)
	return p, translate(err)
}

// History of a policy, oldest first.
func (s Stored) History(ctx context.Context, ref string) ([]api.Revision, error) {
	id, err := s.Store.Resolve(ctx, ref)
	if err != nil {
		return nil, translate(err)
	}
	history, err := s.Store.History(ctx, id)
	if err != nil {
		return nil, translate(err)
	}
	all := make([]api.Revision, 0, len(history))
	for _, r := range history {
		all = append(all, api.Revision{Version: r.Number, Time: r.Created, Why: r.Reason, Calls: r.Calls, Complete: r.Complete})
	}
	return all, nil
}

// Events of the journal, in the order of their IDs.
func (s Stored) Events(ctx context.Context, q api.EventQuery) ([]api.Event, error) {
	events, err := s.Store.Events(ctx, store.EventFilter{After: q.After, Workload: q.Workload, Kind: q.Kind, Limit: q.Limit, Oldest: q.Oldest})
	if err != nil {
		return nil, translate(err)
	}
	all := make([]api.Event, 0, len(events))
	for _, e := range events {
		all = append(all, api.Event(e))
	}
	return all, nil
}

// Append events to the journal: all or none.
func (s Stored) Append(ctx context.Context, events []api.Event) error {
	rows := make([]store.Event, 0, len(events))
	for _, e := range events {
		rows = append(rows, store.Event(e))
	}
	_, err := s.Store.AddEvents(ctx, rows)
	return err
}

// Floor of every runtime that started the workload: names by ABI.
func (s Stored) Floor(ctx context.Context, ref string) (map[string][]string, error) {
	id, err := s.Store.Resolve(ctx, ref)
	if err != nil {
		return nil, translate(err)
	}
	floor, err := s.Store.FloorOfWorkload(ctx, id)
	if err != nil {
		return nil, translate(err)
	}
	names := make(map[string][]string, len(floor))
	for abi, set := range floor {
		names[abi.String()] = set.Names(abi)
	}
	return names, nil
}

// AddFloor of one start.
func (s Stored) AddFloor(ctx context.Context, f Floor) error {
	calls := make(map[syscalls.ABI]syscalls.Set, len(f.Calls))
	maps.Copy(calls, f.Calls)
	return s.Store.MergeFloor(ctx, store.Floor{
		Runtime: f.Runtime, NoNewPrivileges: f.NoNewPrivileges, Calls: calls, Runs: 1,
	}, f.Workload)
}

// Latest policy of a workload by its ID.
func (s Stored) Latest(ctx context.Context, id string) (policy.Policy, bool, error) {
	p, _, err := s.Store.Policy(ctx, id)
	if errors.Is(err, store.ErrNotFound) {
		return policy.Policy{}, false, nil
	}
	return p, err == nil, err
}

// Save a policy.
func (s Stored) Save(ctx context.Context, p policy.Policy, why string) error {
	_, err := s.Store.PutPolicy(ctx, p, why)
	return translate(err)
}

// Import adds a policy to what is stored of its workload.
func (s Stored) Import(ctx context.Context, p policy.Policy, why string) error {
	old, ok, err := s.Latest(ctx, p.Workload.ID())
	if err != nil {
		return err
	}
	if ok {
		p = policy.Merge(old, p)
	}
	return s.Save(ctx, p, why)
}

// RecordExport of a profile. Version 0 is the newest.
func (s Stored) RecordExport(ctx context.Context, e api.Export) error {
	if e.Version == 0 {
		_, r, err := s.Store.Policy(ctx, e.Workload)
		if err != nil {
			return translate(err)
		}
		e.Version = r.Number
	}
	return translate(s.Store.PutExport(ctx, e.Fingerprint, e.Workload, e.Version))
}

// Exported fingerprints, and whose policies they came from.
func (s Stored) Exported(ctx context.Context) (map[string]string, error) {
	exports, err := s.Store.Exports(ctx)
	if err != nil {
		return nil, err
	}
	all := make(map[string]string, len(exports))
	for _, e := range exports {
		all[e.Fingerprint] = e.Workload
	}
	return all, nil
}

// Current policy of a workload by its ID, and its revision.
func (s Stored) Current(ctx context.Context, id string) (p policy.Policy, revision int, ok bool, err error) {
	p, r, err := s.Store.Policy(ctx, id)
	if errors.Is(err, store.ErrNotFound) {
		return policy.Policy{}, 0, false, nil
	}
	return p, r.Number, err == nil, err
}

// Modes that were set.
func (s Stored) Modes(ctx context.Context) ([]store.Mode, error) { return s.Store.Modes(ctx) }

// PutMode of a workload.
func (s Stored) PutMode(ctx context.Context, m store.Mode) error { return s.Store.PutMode(ctx, m) }

// IntendSupervision records a change before it is made.
func (s Stored) IntendSupervision(ctx context.Context, v store.Supervised) (int64, error) {
	return s.Store.IntendSupervision(ctx, v)
}

// ConfirmSupervision records that the change is in the kernel.
func (s Stored) ConfirmSupervision(ctx context.Context, seq int64, pid int, started uint64) error {
	return s.Store.ConfirmSupervision(ctx, seq, pid, started)
}

// AbandonSupervision records that an intended change was not made.
func (s Stored) AbandonSupervision(ctx context.Context, seq int64) error {
	return s.Store.AbandonSupervision(ctx, seq)
}

// SetSupervisedMode of a container.
func (s Stored) SetSupervisedMode(ctx context.Context, engine, id, mode string) error {
	return s.Store.SetSupervisedMode(ctx, engine, id, mode)
}

// EndSupervision of a container that is no more.
func (s Stored) EndSupervision(ctx context.Context, engine, id string) error {
	return s.Store.EndSupervision(ctx, engine, id)
}

// Supervised is what is intended or done.
func (s Stored) Supervised(ctx context.Context) ([]store.Supervised, error) {
	return s.Store.Supervised(ctx)
}
