// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"testing"
	"time"

	"github.com/whittle-sec/whittle/internal/syscalls"
	"github.com/whittle-sec/whittle/internal/workload"
)

const x86 = syscalls.X86_64

func nr(t testing.TB, abi syscalls.ABI, name string) uint32 {
	t.Helper()
	n, ok := syscalls.Number(abi, name)
	if !ok {
		t.Fatalf("no call %q in %v", name, abi)
	}
	return n
}

func set(t testing.TB, abi syscalls.ABI, names ...string) (s syscalls.Set) {
	t.Helper()
	for _, name := range names {
		s.Add(nr(t, abi, name))
	}
	return s
}

func call(t testing.TB, name string) syscalls.Call {
	return syscalls.Call{ABI: x86, Nr: nr(t, x86, name)}
}

// example has something of everything.
func example(t testing.TB) Policy {
	return Policy{
		Workload: workload.Workload{Image: "docker.io/library/redis:7", Digest: "sha256:abcd", Command: []string{"redis-server", "--save", "a\nb <&>"}},
		Partial:  []string{"1 of 2 containers was already running"},
		Account: Account{Runs: 2, LateRuns: 1, Recorded: 120, Drained: 120, Losses: map[string]uint64{"bursts_full": 3},
			Gaps: []string{"the agent was restarted"}},
		ABIs: map[syscalls.ABI]*Calls{
			x86: {
				Phases: map[Phase]syscalls.Set{
					Boot: set(t, x86, "open", "read", "write", "socket", "mmap", "setuid", "#600"),
					Run:  set(t, x86, "read", "write", "execve"),
					Stop: set(t, x86, "write", "unlink"),
				},
				Floor: set(t, x86, "close", "execve", "prctl"),
				Exec:  set(t, x86, "read", "ioctl"),
				Roles: map[string]RoleCalls{
					"/usr/bin/redis-server:0": {Phases: map[Phase]syscalls.Set{Run: set(t, x86, "read", "write", "execve")},
						Birth: set(t, x86, "setuid")},
					"/bin/sh:0": {Phases: map[Phase]syscalls.Set{Run: set(t, x86, "write")}},
				},
				Evidence: map[uint32]Evidence{
					nr(t, x86, "execve"): {Source: "observed", Count: 3, FirstSeen: 33 * time.Second, LastSeen: 357 * time.Second,
						Phases: PhaseCounts{Run: 3}, Lanes: []string{"service"}, Roles: []string{"/bin/sh:0"}, Rate: 0.25, Runs: 1},
					nr(t, x86, "unlink"): {Source: "granted", Reason: "an operator allowed it"},
				},
				Denied: map[uint32]DeniedCall{nr(t, x86, "keyctl"): {Errno: EPERM, Count: 4}, nr(t, x86, "io_uring_setup"): {Errno: ENOSYS, Count: 1}},
				Args: map[uint32][]ArgRule{nr(t, x86, "socket"): {
					{Index: 0, Mask: 0xffffffff, Value: 2}, {Index: 0, Mask: 0xffffffff, Value: 1}, {Index: 2, Mask: ^uint64(0), Value: 0}}},
			},
			syscalls.I386: {Phases: map[Phase]syscalls.Set{Boot: set(t, syscalls.I386, "getpid")}},
		},
		Settled: Settled{PUnseen: 0.0125, Bursts: 1200, Missing: 1.5, Reason: "p_unseen is above 0.001"},
	}
}
