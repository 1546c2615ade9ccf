// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"errors"

	"github.com/whittle-sec/whittle/internal/policy"
)

// Sentinels of a Backend, wrapped with what was not found or why it was refused.
var (
	ErrNotFound = errors.New("not found")
	ErrInvalid  = errors.New("invalid request")
	// ErrForbidden is for what a peer may not do although it may talk to the agent.
	ErrForbidden = errors.New("not allowed")
)

// Reader is the stored state. The agent serves it through the socket; commands read it from the store where no agent runs.
type Reader interface {
	Workloads(ctx context.Context) ([]Summary, error)
	// Policy of a workload: ref is its ID, its name, or a unique prefix of either.
	Policy(ctx context.Context, ref string) (policy.Policy, error)
	// PolicyVersion is an earlier version; 0 is the newest.
	PolicyVersion(ctx context.Context, ref string, version int) (policy.Policy, error)
	History(ctx context.Context, ref string) ([]Revision, error)
	Events(ctx context.Context, q EventQuery) ([]Event, error)
	// Floor is what was measured of a runtime's calls, joined over every runtime that started this workload.
	Floor(ctx context.Context, ref string) (map[string][]string, error)
}

// Writer changes the stored state.
type Writer interface {
	Import(ctx context.Context, p policy.Policy, why string) error
	RecordExport(ctx context.Context, e Export) error
}

// Backend answers what the server is asked.
type Backend interface {
	Reader
	Writer
	Status(ctx context.Context) (Status, error)
	// Register returns when no later call of the container is missed. A peer that is not Privileged speaks of its own
	// containers only.
	Register(ctx context.Context, by Peer, r Registration) error
	Gone(ctx context.Context, by Peer, g Gone) error
	// Follow calls send with each new event until ctx is done or send fails.
	Follow(ctx context.Context, after int64, send func(Event) error) error
}
