// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/judge"
	"github.com/whittle-sec/whittle/internal/loop"
	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/internal/oracle"
	"github.com/whittle-sec/whittle/internal/plan"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/supervise"
	"github.com/whittle-sec/whittle/internal/syscalls"
	"github.com/whittle-sec/whittle/internal/ward"
	"github.com/whittle-sec/whittle/internal/workload"
)

// What starts a program is learned from an oracle that notices every attack on memory. One that notices some begins a loop, so that
// they are seen, and teaches nothing.
func TestLoopStartsPrograms(t *testing.T) {
	roles := &policy.Calls{Roles: map[string]policy.RoleCalls{"/usr/bin/web:0": {}}}
	for _, tt := range []struct {
		name        string
		kind        oracle.Kind
		calls       *policy.Calls
		loops, want bool
	}{
		{"sanitizer", oracle.Sanitizer, roles, true, true},
		{"audit hook", oracle.AuditPython, roles, true, false},
		{"valgrind", oracle.Valgrind, &policy.Calls{}, true, false},
		{"valgrind, whose programs are one", oracle.Valgrind, roles, false, false},
		{"a checking allocator", oracle.Hardened, &policy.Calls{}, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newLoopRig(t)
			r.d.spec.Kind = tt.kind
			r.ward.SetOrders(ward.OrdersOf(policy.Policy{Complete: true, ABIs: map[syscalls.ABI]*policy.Calls{native: tt.calls}}, 1, plan.Default(), nil))
			if parked, why := r.asks("execve"); parked != tt.loops {
				t.Errorf("in production it begins a loop: %v (%s)", parked, why)
			}
			if !tt.loops {
				r.asks("sync")
			}
			if !r.turn(loop.InOracle, time.Minute) {
				t.Fatalf("no oracle serves: %q", r.e.verbs)
			}
			if r.reaches("execve") != tt.want {
				t.Errorf("in the oracle it is let through: %v", !tt.want)
			}
			if tt.kind == oracle.Valgrind && !r.reachesAs("execve", "/usr/bin/dash:0", policy.Boot) {
				t.Error("valgrind's own start is refused")
			}
			r.turn(loop.Production, time.Minute)
			if got := r.learned(); slices.Contains(got, "execve") != tt.want {
				t.Errorf("learned %q", got)
			}
		})
	}
}

// What a program does that the service starts is not the service's.
func TestRoleFor(t *testing.T) {
	p := policy.Policy{ABIs: map[syscalls.ABI]*policy.Calls{native: {Roles: map[string]policy.RoleCalls{"/usr/bin/web:0": {}, "/usr/bin/web:1": {}}}}}
	for role, want := range map[string]string{
		"/usr/bin/web:1": "/usr/bin/web:1", "/opt/asan/web:0": "/usr/bin/web:0", "/usr/bin/web-asan:1": "/usr/bin/web:1",
		"/usr/libexec/valgrind/memcheck-amd64-linux:0": "/usr/bin/web:0",
		"/usr/bin/dash:0": "/usr/bin/dash:0", "/usr/bin/dash:1": "/usr/bin/dash:1", "": "",
	} {
		if got := roleFor(p, loop.Key{Call: syscalls.Call{ABI: native}, Role: role}); got != want {
			t.Errorf("%q is %q, want %q", role, got, want)
		}
	}
	if got := roleFor(policy.Policy{}, loop.Key{Role: "/usr/bin/dash:0"}); got != "/usr/bin/dash:0" {
		t.Error(got)
	}
}

// What a twin without its hardening reaches is not learned, however long it goes on.
func TestLoopUnarmed(t *testing.T) {
	r := newLoopRig(t)
	r.unarmed = errors.New("nothing of a sanitizer is mapped")
	r.asks("sync")
	if !r.turn(loop.InOracle, time.Minute) {
		t.Fatalf("no oracle serves: %q", r.e.verbs)
	}
	for range 4 {
		r.reaches("sync")
		r.reaches("personality")
		r.now.Add(int64(2 * time.Second))
		r.d.step(r.ctx)
	}
	if !r.turn(loop.Production, time.Minute) {
		t.Fatalf("production does not come back: %q", r.e.verbs)
	}
	if got := r.learned(); len(got) != 0 {
		t.Errorf("learned %q", got)
	}
	if got := r.records(); len(got) != 1 || got[0].Verdict != loop.VerdictFailed || !strings.Contains(got[0].Why, "nothing of a sanitizer") {
		t.Errorf("records %+v", got)
	}
}

// Every process that listens is looked at; what is not hardened is told by its mappings.
func TestArmedProcesses(t *testing.T) {
	c := engine.Container{Container: workload.Container{PID: os.Getpid()}, State: engine.Running}
	err := (&Moving{}).armed(c, oracle.Spec{Kind: oracle.Sanitizer}, t.TempDir())
	if err == nil || !strings.Contains(err.Error(), "sanitizer") {
		t.Errorf("this test is taken for a sanitized program: %v", err)
	}
	dir := t.TempDir()
	if err := writeOracle(dir, nil); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "reports", "loaded.1"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := (&Moving{}).armed(c, oracle.Spec{Kind: oracle.AuditPython}, dir); err != nil {
		t.Error(err)
	}
}

// What production's allocator asks for is learned without a loop, as no sanitized twin has this allocator.
func TestAllocatorNeedsNoLoop(t *testing.T) {
	const libc = "/usr/lib/x86_64-linux-gnu/libc.so.6"
	for _, tt := range []struct {
		name, call, from string
		class            judge.Class
		kind             oracle.Kind
		advice           uint64
		want             bool
	}{
		{"the heap grows", "brk", libc, judge.File, oracle.Sanitizer, 0, true},
		{"a large piece grows", "mremap", libc, judge.File, oracle.Sanitizer, 0, true},
		{"what is free is given back", "madvise", libc, judge.File, oracle.Sanitizer, 4, true},
		{"another advice", "madvise", libc, judge.File, oracle.Sanitizer, 100, false},
		{"an oracle with the same allocator", "mremap", libc, judge.File, oracle.AuditPython, 0, false},
		{"the program's own code", "mremap", "/usr/bin/web", judge.File, oracle.Sanitizer, 0, false},
		{"a file called like the library", "mremap", "/tmp/libc.so.6", judge.Foreign, oracle.Sanitizer, 0, false},
		{"code may be mapped", "mmap", libc, judge.File, oracle.Sanitizer, 0, false},
		{"another call", "sync", libc, judge.File, oracle.Sanitizer, 0, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newLoopRig(t)
			r.d.spec.Kind = tt.kind
			q := judge.Question{Call: r.call(tt.call), Args: [6]uint64{2: tt.advice}, Phase: policy.Run, Lane: observe.LaneService, Role: "/usr/bin/web:0"}
			asks := func() (bool, string) {
				return r.d.refused(looping{
					from: key{"fake", production}, held: supervise.Held{Container: 1, Call: q.Call}, errno: 1, ward: r.ward, supervisor: r.sup,
					asked: judge.Case{Question: q, Evidence: judge.Evidence{Origin: judge.Origin{Class: tt.class, Path: tt.from}}},
				})
			}
			if parked, why := asks(); !parked {
				t.Fatal(why)
			}
			r.d.step(r.ctx)
			if got := slices.Contains(r.learned(), tt.call); got != tt.want {
				t.Errorf("learned: %v", got)
			}
			if got := len(r.records()) == 0; got != tt.want {
				t.Errorf("without a loop: %v; %q", got, r.e.verbs)
			}
			if tt.want && len(r.d.waits) != 0 {
				t.Errorf("%d calls wait still", len(r.d.waits))
			}
			for range 2 * maxGiven { // by a ward that does not have it
				asks()
				r.d.step(r.ctx)
			}
			if parked, _ := asks(); parked {
				t.Error("it is given without end")
			}
		})
	}
}
