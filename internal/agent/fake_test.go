// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"

	"github.com/whittle-sec/whittle/internal/kernel"
	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/store"
)

// What supervision asks of the observer and the store, in an agent that does not supervise.

func (o *observer) Follow(t kernel.Target) (kernel.ID, error)    { return o.Observe(t) }
func (o *observer) Settle(id kernel.ID) (observe.Trace, error)   { return o.Trace(id) }
func (o *observer) Injecting(kernel.ID, bool) error              { return nil }
func (o *observer) Hold(kernel.ID) error                         { return nil }
func (o *observer) Arrivals() <-chan kernel.Arrival              { return nil }
func (o *observer) AlsoWatch(kernel.ID, kernel.Allowed) error    { return nil }
func (o *observer) Who(kernel.ID, int) (kernel.Who, bool)        { return kernel.Who{}, false }
func (o *observer) Stage(kernel.ID) (observe.Stage, bool)        { return observe.StageRun, true }
func (o *observer) SetStage(id kernel.ID, _ observe.Stage) error { return nil }

func (s *memory) Current(ctx context.Context, id string) (policy.Policy, int, bool, error) {
	p, ok, err := s.Latest(ctx, id)
	return p, 1, ok, err
}
func (s *memory) Modes(context.Context) ([]store.Mode, error) { return nil, nil }
func (s *memory) PutMode(context.Context, store.Mode) error   { return nil }
func (s *memory) IntendSupervision(context.Context, store.Supervised) (int64, error) {
	return 1, nil
}
func (s *memory) ConfirmSupervision(context.Context, int64, int, uint64) error    { return nil }
func (s *memory) AbandonSupervision(context.Context, int64) error                 { return nil }
func (s *memory) SetSupervisedMode(context.Context, string, string, string) error { return nil }
func (s *memory) EndSupervision(context.Context, string, string) error            { return nil }
func (s *memory) Supervised(context.Context) ([]store.Supervised, error)          { return nil, nil }

// What time loops ask of the store, in an agent that makes none; see loops for one that does.

func (s *memory) PutOracle(context.Context, string, []byte) error                    { return nil }
func (s *memory) DeleteOracle(context.Context, string) error                         { return nil }
func (s *memory) Oracles(context.Context) ([]store.Oracle, error)                    { return nil, nil }
func (s *memory) PutLoop(context.Context, string, []byte, ...store.LoopRecord) error { return nil }
func (s *memory) DeleteLoop(context.Context, string) error                           { return nil }
func (s *memory) Loops(context.Context) ([]store.Loop, error)                        { return nil, nil }
func (s *memory) LoopRecords(context.Context, string, int) ([]store.LoopRecord, error) {
	return nil, nil
}
