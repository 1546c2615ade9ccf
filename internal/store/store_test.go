// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/whittle-sec/whittle/internal/hint"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
	"github.com/whittle-sec/whittle/internal/testenv"
	"github.com/whittle-sec/whittle/internal/workload"
)

var ctx = context.Background()

// TestMain is also the child process of the crash tests.
func TestMain(m *testing.M) {
	if job := os.Getenv(jobVariable); job != "" {
		os.Exit(runJob(job, os.Getenv(dirVariable)))
	}
	testenv.Main(m)
}

// clock advances by a second each time it is read.
func clock() func() time.Time {
	var mu sync.Mutex
	at := time.Date(2025, 1, 2, 3, 4, 5, 0, time.UTC)
	return func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		at = at.Add(time.Second)
		return at
	}
}

func open(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(dir, clock())
	if err != nil {
		t.Fatalf("Open: %v (hint: %s)", err, hint.Of(err))
	}
	t.Cleanup(func() { closeStore(t, s) })
	return s
}

func closeStore(t *testing.T, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

func stateDir(t *testing.T) string { return filepath.Join(t.TempDir(), "a ?#%20 state") }

// testPolicy allows the calls with these numbers while running.
func testPolicy(image string, nrs ...uint32) policy.Policy {
	return policy.Normal(policy.Policy{
		Workload: workload.Workload{Image: image, Command: []string{"serve", "\xff\n"}},
		Account:  policy.Account{Runs: 1},
		ABIs: map[syscalls.ABI]*policy.Calls{syscalls.X86_64: {
			Phases:   map[policy.Phase]syscalls.Set{policy.Run: syscalls.SetOf(nrs...)},
			Evidence: map[uint32]policy.Evidence{0: {Source: "observed", Count: 1}},
		}},
	})
}

func put(t *testing.T, s *Store, p policy.Policy, reason string) int {
	t.Helper()
	revision, err := s.PutPolicy(ctx, p, reason)
	if err != nil {
		t.Fatalf("PutPolicy: %v", err)
	}
	return revision
}

func TestPolicyRevisions(t *testing.T) {
	dir := stateDir(t)
	s := open(t, dir)
	p := testPolicy("example.org/redis:7", 0, 1)
	id := p.Workload.ID()
	if got := put(t, s, p, "learned"); got != 1 {
		t.Errorf("first revision %d, want 1", got)
	}
	if got := put(t, s, p, "again"); got != 1 {
		t.Errorf("the same again is revision %d, want 1", got)
	}
	evidence := policy.Normal(p)
	evidence.ABIs[syscalls.X86_64].Evidence[0] = policy.Evidence{Source: "observed", Count: 9}
	if got := put(t, s, evidence, "more of the same"); got != 1 {
		t.Errorf("more evidence is revision %d, want 1", got)
	}
	got, rev, err := s.Policy(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	if n := got.ABIs[syscalls.X86_64].Evidence[0].Count; n != 9 {
		t.Errorf("count %d, want the newer evidence, 9", n)
	}
	if rev.Reason != "learned" || rev.Calls != 2 || !rev.Updated.After(rev.Created) {
		t.Errorf("revision %+v, want the first reason and a later update", rev)
	}
	if got := put(t, s, testPolicy("example.org/redis:7", 0, 1, 2), "learned\x1b more"); got != 2 {
		t.Errorf("one call more is revision %d, want 2", got)
	}
	complete := testPolicy("example.org/redis:7", 0, 1, 2)
	complete.Complete = true
	if got := put(t, s, complete, "account balances"); got != 3 {
		t.Errorf("complete is revision %d, want 3", got)
	}
	closeStore(t, s)

	s = open(t, dir)
	old, rev, err := s.PolicyAt(ctx, id, 1)
	if err != nil || rev.Number != 1 {
		t.Fatalf("PolicyAt 1: %v, %+v", err, rev)
	}
	// The command's byte that is not UTF-8 is what JSON makes of it, but the identity is the same.
	old.Workload.Command, evidence.Workload.Command = nil, nil
	if diff := cmp.Diff(evidence, old); diff != "" {
		t.Errorf("revision 1 (-want +got):\n%s", diff)
	}
	history, err := s.History(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, r := range history {
		lines = append(lines, fmt.Sprintf("%d %s %d %t", r.Number, r.Reason, r.Calls, r.Complete))
	}
	want := []string{"1 learned 2 false", "2 learned? more 3 false", "3 account balances 3 true"}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Errorf("history (-want +got):\n%s", diff)
	}
	if _, _, err := s.PolicyAt(ctx, id, 9); !errors.Is(err, ErrNotFound) {
		t.Errorf("PolicyAt 9: %v, want ErrNotFound", err)
	}
	if _, err := s.History(ctx, "none"); !errors.Is(err, ErrNotFound) {
		t.Errorf("History of nothing: %v, want ErrNotFound", err)
	}
}

func TestResolve(t *testing.T) {
	s := open(t, stateDir(t))
	a, b, c := testPolicy("redis:6"), testPolicy("redis:7"), testPolicy("nginx")
	for _, p := range []policy.Policy{a, b, c} {
		put(t, s, p, "learned")
	}
	for _, tc := range []struct {
		name, ref, want string
		err             error
	}{
		{"ID", a.Workload.ID(), a.Workload.ID(), nil},
		{"name", b.Workload.Name(), b.Workload.ID(), nil},
		{"prefix of a name", "ng", c.Workload.ID(), nil},
		{"prefix of an ID", a.Workload.ID()[:6], a.Workload.ID(), nil},
		{"two names", "redis", "", ErrAmbiguous},
		{"pattern", "%", "", ErrNotFound},
		{"pattern of one character", "ngin_", "", ErrNotFound},
		{"empty", "", "", ErrNotFound},
		{"nothing", "postgres", "", ErrNotFound},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p, _, err := s.Policy(ctx, tc.ref)
			if !errors.Is(err, tc.err) || err == nil && p.Workload.ID() != tc.want {
				t.Errorf("Policy(%q) = %s, %v, want %q, %v", tc.ref, p.Workload.ID(), err, tc.want, tc.err)
			}
		})
	}
	_, _, err := s.Policy(ctx, "redis")
	for _, p := range []policy.Policy{a, b} {
		if !strings.Contains(err.Error(), p.Workload.Name()+" ("+p.Workload.ID()+")") {
			t.Errorf("%v does not name %s", err, p.Workload.Name())
		}
	}
	entries, err := s.Policies(ctx)
	if err != nil || len(entries) != 3 || entries[0].ID != c.Workload.ID() || entries[0].Revision.Number != 1 {
		t.Errorf("Policies = %+v, %v", entries, err)
	}
}

func TestHistoryIsBounded(t *testing.T) {
	s := open(t, stateDir(t))
	id := testPolicy("redis").Workload.ID()
	for i := range MaxRevisions + 10 {
		put(t, s, testPolicy("redis", uint32(i)), "learned")
		if i == 3 {
			if err := s.PutExport(ctx, "print", id, 4); err != nil {
				t.Fatal(err)
			}
		}
	}
	history, err := s.History(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	if len(history) != MaxRevisions+1 || history[0].Number != 4 || history[len(history)-1].Number != MaxRevisions+10 {
		t.Errorf("%d revisions from %d, want the exported one and the newest %d", len(history), history[0].Number, MaxRevisions)
	}
}

func TestExports(t *testing.T) {
	s := open(t, stateDir(t))
	p := testPolicy("redis", 1)
	id := p.Workload.ID()
	if err := s.PutExport(ctx, "f1", id, 1); !errors.Is(err, ErrNotFound) {
		t.Errorf("export of nothing: %v, want ErrNotFound", err)
	}
	put(t, s, p, "learned")
	put(t, s, testPolicy("redis", 1, 2), "learned")
	for _, revision := range []int{1, 2} {
		if err := s.PutExport(ctx, "f1", id, revision); err != nil {
			t.Fatal(err)
		}
	}
	got, err := s.Export(ctx, "f1")
	if err != nil || got.Workload != id || got.Revision != 2 {
		t.Errorf("Export = %+v, %v, want revision 2", got, err)
	}
	if _, err := s.Export(ctx, "f2"); !errors.Is(err, ErrNotFound) {
		t.Errorf("unknown fingerprint: %v, want ErrNotFound", err)
	}
	if all, err := s.Exports(ctx); err != nil || len(all) != 1 {
		t.Errorf("Exports = %v, %v", all, err)
	}
}

func TestFloors(t *testing.T) {
	s := open(t, stateDir(t))
	add := func(runtime string, nnp bool, workload string, nrs ...uint32) {
		t.Helper()
		f := Floor{Runtime: runtime, NoNewPrivileges: nnp, Calls: map[syscalls.ABI]syscalls.Set{syscalls.X86_64: syscalls.SetOf(nrs...)}}
		if err := s.MergeFloor(ctx, f, workload); err != nil {
			t.Fatal(err)
		}
	}
	add("runc", true, "w1", 1, 2)
	add("runc", true, "w2", 2, 600)
	add("runc", false, "w2", 4)
	add("crun", true, "", 5)
	f, err := s.Floor(ctx, "runc", true)
	if err != nil || f.Runs != 2 || f.Calls[syscalls.X86_64] != syscalls.SetOf(1, 2, 600) {
		t.Errorf("Floor(runc) = %+v, %v, want the union of two starts", f, err)
	}
	for id, want := range map[string]syscalls.Set{"w1": syscalls.SetOf(1, 2, 600), "w2": syscalls.SetOf(1, 2, 4, 600), "w3": {}} {
		if got, err := s.FloorOfWorkload(ctx, id); err != nil || got[syscalls.X86_64] != want {
			t.Errorf("FloorOfWorkload(%s) = %v, %v, want %v", id, got, err, want)
		}
	}
	if _, err := s.Floor(ctx, "kata", true); !errors.Is(err, ErrNotFound) {
		t.Errorf("unknown runtime: %v, want ErrNotFound", err)
	}
}

func TestJournal(t *testing.T) {
	s := open(t, stateDir(t))
	s.maxEvents = 50
	for i := range 120 {
		e := Event{Kind: []string{"denied", "learned"}[i%2], Workload: fmt.Sprint("w", i%3), Text: "call\x1b[2J",
			Call: "mount", Data: json.RawMessage(`{"n":1}`)}
		if id, err := s.AddEvent(ctx, e); err != nil || id != int64(i+1) {
			t.Fatalf("AddEvent %d = %d, %v", i, id, err)
		}
	}
	for _, tc := range []struct {
		name        string
		f           EventFilter
		first, last int64
		n           int
	}{
		{"bounded", EventFilter{}, 71, 120, 50},
		{"newest", EventFilter{Limit: 3}, 118, 120, 3},
		{"oldest", EventFilter{Limit: 3, Oldest: true}, 71, 73, 3},
		{"after", EventFilter{After: 100, Limit: 2, Oldest: true}, 101, 102, 2},
		{"kind", EventFilter{Kind: "learned", Limit: 2}, 118, 120, 2},
		{"workload and kind", EventFilter{Kind: "denied", Workload: "w0", After: 100}, 103, 115, 3},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := s.Events(ctx, tc.f)
			if err != nil || len(got) != tc.n || got[0].ID != tc.first || got[len(got)-1].ID != tc.last {
				t.Errorf("Events(%+v) = %+v, %v, want %d from %d to %d", tc.f, got, err, tc.n, tc.first, tc.last)
			}
		})
	}
	got, err := s.Events(ctx, EventFilter{Limit: 1})
	if err != nil || got[0].Text != "call?[2J" || string(got[0].Data) != `{"n":1}` || got[0].Time.IsZero() {
		t.Errorf("event %+v, %v, want it printable, with its data and a time", got, err)
	}
	for name, data := range map[string]string{"not JSON": "{", "too large": `"` + strings.Repeat("x", maxData) + `"`} {
		if _, err := s.AddEvents(ctx, []Event{{Kind: "ok"}, {Kind: "bad", Data: json.RawMessage(data)}}); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
		}
	}
	if ids, err := s.AddEvents(ctx, []Event{{Kind: "a"}, {Kind: "b"}}); err != nil || len(ids) != 2 || ids[0] != 121 {
		t.Errorf("AddEvents = %v, %v, want 121 and 122: nothing of a refused batch was stored", ids, err)
	}
}

func TestReadOnly(t *testing.T) {
	dir := stateDir(t)
	if _, err := OpenReadOnly(dir); !errors.Is(err, ErrNotFound) || hint.Of(err) == "" {
		t.Errorf("OpenReadOnly of nothing: %v, want ErrNotFound with a hint", err)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("OpenReadOnly made the directory")
	}
	w := open(t, dir)
	put(t, w, testPolicy("redis", 1), "learned")
	r, err := OpenReadOnly(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer closeStore(t, r)
	put(t, w, testPolicy("redis", 1, 2), "learned")
	if _, rev, err := r.Policy(ctx, "redis"); err != nil || rev.Number != 2 {
		t.Errorf("beside a writer: %+v, %v, want revision 2", rev, err)
	}
	if _, err := r.PutPolicy(ctx, testPolicy("redis"), ""); !errors.Is(err, ErrReadOnly) {
		t.Errorf("writing: %v, want ErrReadOnly", err)
	}
	if _, err := r.read.Exec(`DELETE FROM journal`); err == nil {
		t.Error("the connection of a reader can write")
	}
}

func TestManyGoroutines(t *testing.T) {
	s := open(t, stateDir(t))
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 5 {
				if _, err := s.PutPolicy(ctx, testPolicy(fmt.Sprint("image", i), uint32(j)), "learned"); err != nil {
					t.Errorf("PutPolicy: %v", err)
				}
				if _, err := s.AddEvent(ctx, Event{Kind: "k"}); err != nil {
					t.Errorf("AddEvent: %v", err)
				}
				if _, _, err := s.Policy(ctx, fmt.Sprint("image", i)); err != nil {
					t.Errorf("Policy: %v", err)
				}
			}
		})
	}
	wg.Wait()
	if events, err := s.Events(ctx, EventFilter{}); err != nil || len(events) != 40 {
		t.Errorf("%d events, %v, want 40", len(events), err)
	}
}

func TestCancelledWriteStoresNothing(t *testing.T) {
	s := open(t, stateDir(t))
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := s.AddEvent(cancelled, Event{Kind: "k"}); !errors.Is(err, context.Canceled) {
		t.Errorf("AddEvent: %v, want context.Canceled", err)
	}
	if _, err := s.AddEvent(ctx, Event{Kind: "k"}); err != nil {
		t.Errorf("after a cancelled write: %v", err)
	}
	if events, err := s.Events(ctx, EventFilter{}); err != nil || len(events) != 1 {
		t.Errorf("%d events, %v, want 1", len(events), err)
	}
}
