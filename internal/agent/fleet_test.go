// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"strconv"
	"testing"

	"github.com/whittle-sec/whittle/internal/judge"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

func TestFleet(t *testing.T) {
	call := syscalls.Call{ABI: syscalls.X86_64, Nr: 95}
	a, b, c := key{"podman", "a"}, key{"podman", "b"}, key{"docker", "c"}
	var f fleet
	want := func(who key, replicas, needed int) {
		t.Helper()
		if got := f.asked("w", who, call); got != (judge.Fleet{Replicas: replicas, Needed: needed}) {
			t.Errorf("%v: %+v, want %d of %d", who, got, needed, replicas)
		}
	}
	want(a, 0, 0) // of nobody
	f.join("w", a)
	f.join("w", b)
	f.join("other", c)
	want(a, 1, 0)
	want(a, 1, 0) // asking twice makes no second replica
	want(b, 1, 1)
	if got := f.asked("other", c, call); got != (judge.Fleet{}) {
		t.Errorf("alone in its workload: %+v", got)
	}
	f.leave("w", b)
	want(a, 0, 0)
	f.join("w", b) // started again: what it needed before counts no more
	want(a, 1, 0)

	for i := range 10 * maxReplicas {
		k := key{"podman", strconv.Itoa(i)}
		f.join("w", k)
		for nr := range uint32(syscalls.MaxNr) {
			f.asked("w", k, syscalls.Call{ABI: syscalls.X86_64, Nr: nr})
		}
	}
	// One too many to be remembered hears of the others (b did not ask again), and does not pass for the only one.
	if got := f.asked("w", key{"podman", "late"}, call); got != (judge.Fleet{Replicas: maxReplicas, Needed: maxReplicas - 1}) {
		t.Errorf("one more than are remembered hears %+v", got)
	}
	if s := f.squads["w"]; len(s.replicas) > maxReplicas || len(s.needed) > maxFleetCalls {
		t.Errorf("%d replicas, %d calls are remembered", len(s.replicas), len(s.needed))
	}
	for k := range f.squads["w"].replicas {
		f.leave("w", k)
	}
	f.leave("other", c)
	f.leave("never", c)
	if len(f.squads) != 0 {
		t.Errorf("left: %v", f.squads)
	}
}
