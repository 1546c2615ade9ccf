// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/filter"
	"github.com/whittle-sec/whittle/internal/kernel"
	"github.com/whittle-sec/whittle/internal/learn"
	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/store"
	"github.com/whittle-sec/whittle/internal/syscalls"
	"github.com/whittle-sec/whittle/internal/workload"
)

// Observer is what the agent asks of kernel.Observer.
type Observer interface {
	Run(ctx context.Context) error
	Observe(t kernel.Target) (kernel.ID, error)
	Watch(t kernel.Target, a kernel.Allowed) (kernel.ID, error)
	Trace(id kernel.ID) (observe.Trace, error)
	Finish(id kernel.ID, ended bool) (observe.Trace, error)
	Denials() <-chan kernel.Denial
	Follow(t kernel.Target) (kernel.ID, error)
	Settle(id kernel.ID) (observe.Trace, error)
	Injecting(id kernel.ID, now bool) error
	Hold(id kernel.ID) error
	Arrivals() <-chan kernel.Arrival
	AlsoWatch(id kernel.ID, a kernel.Allowed) error
	Who(id kernel.ID, tid int) (kernel.Who, bool)
	Stage(id kernel.ID) (observe.Stage, bool)
	SetStage(id kernel.ID, stage observe.Stage) error
}

// Store is what the agent asks of package store. Its methods may be called by several goroutines.
type Store interface {
	api.Reader
	api.Writer
	// Latest policy of a workload by its ID; ok is false when there is none.
	Latest(ctx context.Context, id string) (p policy.Policy, ok bool, err error)
	Save(ctx context.Context, p policy.Policy, why string) error
	Append(ctx context.Context, events []api.Event) error
	AddFloor(ctx context.Context, f Floor) error
	// Exported maps the fingerprint of each profile that was handed out to the ID of its workload.
	Exported(ctx context.Context) (map[string]string, error)
	// Current is Latest with its revision.
	Current(ctx context.Context, id string) (p policy.Policy, revision int, ok bool, err error)
	Modes(ctx context.Context) ([]store.Mode, error)
	PutMode(ctx context.Context, m store.Mode) error
	IntendSupervision(ctx context.Context, v store.Supervised) (seq int64, err error)
	ConfirmSupervision(ctx context.Context, seq int64, pid int, started uint64) error
	AbandonSupervision(ctx context.Context, seq int64) error
	SetSupervisedMode(ctx context.Context, engine, id, mode string) error
	EndSupervision(ctx context.Context, engine, id string) error
	Supervised(ctx context.Context) ([]store.Supervised, error)
	PutOracle(ctx context.Context, workloadID string, spec []byte) error
	DeleteOracle(ctx context.Context, workloadID string) error
	Oracles(ctx context.Context) ([]store.Oracle, error)
	PutLoop(ctx context.Context, workloadID string, saved []byte, records ...store.LoopRecord) error
	DeleteLoop(ctx context.Context, workloadID string) error
	Loops(ctx context.Context) ([]store.Loop, error)
	LoopRecords(ctx context.Context, workloadID string, limit int) ([]store.LoopRecord, error)
}

// Floor is what one runtime was seen to need for one workload after it loaded the filter.
type Floor struct {
	Runtime         string // digest of its executable
	NoNewPrivileges bool
	Workload        string // ID
	Calls           map[syscalls.ABI]syscalls.Set
}

// Lesson of one container so far.
type Lesson struct {
	Policy  policy.Policy            // proposed from this container alone
	Phase   policy.Phase             // the phase that it is in now
	BootEnd time.Duration            // since the container was added; 0 while booting
	Origins map[syscalls.Call]string // of the service's calls, by the name of the memory, where it is known
	Speaker time.Duration            // where SPEAKER's rule, the baseline, would have ended booting; 0 if it would not yet
}

// Learn is package learn with its default configuration.
func Learn(w workload.Workload, t observe.Trace) Lesson {
	r := learn.Analyse(t, learn.Default())
	l := Lesson{Policy: learn.Propose(w, t, r), Phase: r.Phase, Origins: learn.Origins(t)}
	if r.Cut.BootEnd < len(r.Cut.Of) {
		l.BootEnd = r.Cut.Ready
	}
	if r.Speaker.BootEnd < len(r.Speaker.Of) {
		l.Speaker = r.Speaker.Ready
	}
	return l
}

// native is the ABI of the host's own programs.
var native, _ = syscalls.Native(runtime.GOARCH)

// profileOf reads a container's seccomp profile: its fingerprint, and what it lets through.
func profileOf(text []byte) (fingerprint string, allowed kernel.Allowed, err error) {
	p, err := filter.Parse(text, native)
	if err != nil {
		return "", kernel.Allowed{}, fmt.Errorf("read it: %w", err)
	}
	calls, checked := filter.Allowed(p, native)
	allowed = kernel.Allowed{Calls: calls, Checked: map[syscalls.Call][]kernel.Check{}}
	rules, err := filter.Import(text, workload.Workload{}, native) // may fail: some conditions have no rules
	for abi, set := range checked {
		for nr := range set.All() {
			var checks []kernel.Check
			if c := rules.ABIs[abi]; err == nil && c != nil {
				for _, r := range c.Args[nr] {
					checks = append(checks, kernel.Check(r))
				}
			}
			allowed.Checked[syscalls.Call{ABI: abi, Nr: nr}] = checks
		}
	}
	return filter.Fingerprint(p), allowed, nil
}
