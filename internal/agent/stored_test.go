// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"testing"
	"time"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/store"
	"github.com/whittle-sec/whittle/internal/syscalls"
	"github.com/whittle-sec/whittle/internal/workload"
)

func TestStored(t *testing.T) {
	db, err := store.Open(t.TempDir(), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	s := Stored{db}
	defer s.Close()
	ctx := t.Context()
	if _, err := s.Policy(ctx, "redis"); !errors.Is(err, api.ErrNotFound) || !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Policy of nothing = %v, want %v", err, api.ErrNotFound)
	}
	p := lesson(true, map[policy.Phase][]string{policy.Boot: {"execve"}, policy.Run: {"read", "write"}}).Policy
	p.Workload = workload.Workload{Image: "redis:7", Command: []string{"redis-server"}}
	if err := s.Import(ctx, p, "test"); err != nil {
		t.Fatal(err)
	}
	q := lesson(true, map[policy.Phase][]string{policy.Stop: {"unlink"}}).Policy
	q.Workload = p.Workload
	if err := s.Import(ctx, q, "test again"); err != nil {
		t.Fatal(err)
	}
	list, err := s.Workloads(ctx)
	if err != nil || len(list) != 1 || list[0].ByPhase["run"] != 2 || list[0].ByPhase["stop"] != 1 || list[0].Version != 2 {
		t.Errorf("Workloads = %+v, %v", list, err)
	}
	old, err := s.PolicyVersion(ctx, "redis", 1)
	if err != nil || !old.ABIs[syscalls.X86_64].Phases[policy.Stop].Empty() {
		t.Errorf("version 1 = %+v, %v, want it without the second import", old, err)
	}
	if h, err := s.History(ctx, p.Workload.Name()); err != nil || len(h) != 2 || h[1].Why != "test again" {
		t.Errorf("History = %+v, %v", h, err)
	}
	if err := s.RecordExport(ctx, api.Export{Workload: p.Workload.ID(), Fingerprint: "f"}); err != nil {
		t.Error(err)
	}
	if m, err := s.Exported(ctx); err != nil || m["f"] != p.Workload.ID() {
		t.Errorf("Exported = %v, %v", m, err)
	}
	floor := Floor{Runtime: "sha256:1", Workload: p.Workload.ID(), Calls: map[syscalls.ABI]syscalls.Set{syscalls.X86_64: syscalls.SetOf(0)}}
	if err := s.AddFloor(ctx, floor); err != nil {
		t.Error(err)
	}
	if f, err := s.Floor(ctx, "redis"); err != nil || len(f["x86_64"]) != 1 || f["x86_64"][0] != "read" {
		t.Errorf("Floor = %v, %v", f, err)
	}
	if err := s.Append(ctx, []api.Event{{Kind: "x", Text: "one"}, {Kind: "x", Text: "two"}}); err != nil {
		t.Error(err)
	}
	if e, err := s.Events(ctx, api.EventQuery{After: 1}); err != nil || len(e) != 1 || e[0].Text != "two" {
		t.Errorf("Events = %+v, %v", e, err)
	}
}
