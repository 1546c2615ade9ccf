// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"strings"
	"testing"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// Whoever is inside a container that is learned from cannot teach what never passes, nor anything from code of his own;
// a person can, and what other containers do as a matter of course is not doubted.
func TestQuarantine(t *testing.T) {
	r := start(t, nil)
	pid, end := sleeper(t)
	reg := registration("1", pid)
	if err := r.client.Register(t.Context(), reg); err != nil {
		t.Fatal(err)
	}
	id := reg.Container.Workload.ID()
	l := lesson(false, map[policy.Phase][]string{policy.Boot: {"execve", "brk"}, policy.Run: {"read", "umask", "unshare", "bpf"}})
	umask, _ := syscalls.Number(syscalls.X86_64, "umask")
	read, _ := syscalls.Number(syscalls.X86_64, "read")
	l.Origins = map[syscalls.Call]string{
		{ABI: syscalls.X86_64, Nr: umask}: "anonymous", {ABI: syscalls.X86_64, Nr: read}: "file",
	}
	r.lessons.set(l)
	until(r.journaled("unshare is in quarantine"))
	until(r.journaled("umask is in quarantine: made while learning from"))
	end()
	until(r.journaled("web-1 ended"))

	p, _, ok, err := r.store.Current(t.Context(), id)
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	calls := p.ABIs[syscalls.X86_64]
	var in []string
	for nr := range calls.Quarantined {
		in = append(in, syscalls.Name(syscalls.X86_64, nr))
	}
	if len(in) != 3 || calls.Phases[policy.Run].Has(umask) || !calls.Phases[policy.Run].Has(read) {
		t.Errorf("in quarantine: %v; while running: %v", in, calls.Phases[policy.Run].Names(syscalls.X86_64))
	}
	told := 0
	events, err := r.store.Events(t.Context(), api.EventQuery{Limit: 100})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		if e.Kind == kindQuarantined {
			told++
			if e.Call == "" || !strings.Contains(e.Text, "whittle policy allow") {
				t.Errorf("%+v", e)
			}
		}
	}
	if told != 3 {
		t.Errorf("told %d times, want each call once", told)
	}
}

func TestRunsWith(t *testing.T) {
	call := syscalls.Call{ABI: syscalls.X86_64, Nr: 95}
	made := func(runs int) policy.Policy {
		return policy.Policy{Account: policy.Account{Runs: 3}, ABIs: map[syscalls.ABI]*policy.Calls{syscalls.X86_64: {
			Evidence: map[uint32]policy.Evidence{95: {Count: 1, Runs: runs}},
		}}}
	}
	me, other, third := key{"podman", "me"}, key{"podman", "other"}, key{"podman", "third"}
	for _, tt := range []struct {
		name     string
		b        book
		runs, of int
	}{
		{"alone", book{live: map[key]policy.Policy{me: made(1)}}, 0, 0},
		{"beside two that did not", book{live: map[key]policy.Policy{me: made(1), other: made(0), third: made(0)}}, 0, 2},
		{"beside one that did", book{live: map[key]policy.Policy{me: made(1), other: made(1), third: made(0)}}, 1, 2},
		{"after three that did not", book{base: made(0), started: true, live: map[key]policy.Policy{me: made(1)}}, 0, 3},
		{"after some that did, and ended", book{base: made(2), started: true}, 1, 3},
	} {
		if runs, of := tt.b.runsWith(me, call); runs != tt.runs || of != tt.of {
			t.Errorf("%s: in %d of %d, want %d of %d", tt.name, runs, of, tt.runs, tt.of)
		}
	}
}
