// SPDX-License-Identifier: Apache-2.0

package judge

import (
	"strings"
	"testing"

	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

func TestSuspect(t *testing.T) {
	tests := []struct {
		name     string
		call     string
		origin   Class
		runs, of int
		want     string // part of why; "" is no suspicion
	}{
		{"a poisoner's namespaces", "unshare", File, 1, 1, "without a person"},
		{"in all runs, since he is in all", "unshare", File, 5, 5, "without a person"},
		{"a poisoner's programs", "bpf", Unknown, 1, 1, "without a person"},
		{"rings", "io_uring_setup", File, 9, 9, "without a person"},
		{"injected code, whatever it calls", "getpid", Anonymous, 3, 3, "no file"},
		{"injected code on the stack", "write", Stack, 3, 3, "stack"},
		{"of a kind that a later version knows", "write", Class(99), 3, 3, "not known"},
		{"a service's helpers", "execve", File, 1, 1, ""},
		{"a service's helpers, in most runs", "execve", File, 2, 3, ""},
		{"a shell in one run of three", "execve", File, 1, 3, "1 of 3 runs"},
		{"a service that locks itself up", "chroot", File, 2, 2, ""},
		{"rights, in one run of two", "setuid", File, 1, 2, ""},
		{"rights, in one run of three", "setuid", File, 1, 3, "rights"},
		{"a gated call in one run of four", "setxattr", File, 1, 4, "known vulnerabilities"},
		{"a gated call by chance", "mremap", File, 1, 4, ""},
		{"a snapshot in one run", "clone", File, 1, 4, ""},
		{"a harmless call in one run", "umask", File, 1, 9, ""},
		{"a call that no run made", "setuid", File, 0, 9, "runs"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := Suspect(call(t, test.call), test.origin, test.runs, test.of)
			if (got == "") != (test.want == "") || !strings.Contains(got, test.want) {
				t.Errorf("got %q, want %q in it", got, test.want)
			}
		})
	}
}

// TestNothingOfTheServicesIsSuspect: what the recorded services did is quarantined neither in one run nor when all of
// three did it.
func TestNothingOfTheServicesIsSuspect(t *testing.T) {
	for _, service := range []string{"nginx", "postgres", "redis", "memcached", "node", "python"} {
		for abi, calls := range proposed(t, service).ABIs {
			for n := range policy.AllowedSet(proposed(t, service), policy.Selection{Exec: true}, abi).Union(calls.All()).All() {
				c := syscalls.Call{ABI: abi, Nr: n}
				for _, of := range []int{1, 3} {
					if why := Suspect(c, File, of, of); why != "" {
						t.Errorf("%s, %v: %s", service, c, why)
					}
				}
			}
		}
	}
}
