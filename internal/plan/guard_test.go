// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// What is let through in shadow does not widen the policy by what is risky, wherever it was made, and by anything else it
// does.
func TestGuard(t *testing.T) {
	set := func(names ...string) (s syscalls.Set) {
		for _, n := range names {
			s.Add(call(t, n).Nr)
		}
		return s
	}
	of := func(phases map[policy.Phase]syscalls.Set, exec syscalls.Set, roles map[string]policy.RoleCalls) policy.Policy {
		return policy.Normal(policy.Policy{ABIs: map[syscalls.ABI]*policy.Calls{syscalls.X86_64: {Phases: phases, Exec: exec, Roles: roles}}})
	}
	trusted := of(map[policy.Phase]syscalls.Set{policy.Boot: set("bind", "execve", "setuid"), policy.Run: set("read")}, set("execve"),
		map[string]policy.RoleCalls{"/a:0": {Phases: map[policy.Phase]syscalls.Set{policy.Boot: set("bind"), policy.Run: set("read")}, Birth: set("setuid")}})
	seen := of(map[policy.Phase]syscalls.Set{
		policy.Boot: set("bind", "unshare"), policy.Run: set("read", "getrusage", "bind", "execve", "bpf"), policy.Stop: set("unlink", "kill"),
	}, set("execve", "unshare", "uname"), map[string]policy.RoleCalls{
		"/a:0":     {Phases: map[policy.Phase]syscalls.Set{policy.Run: set("read", "getrusage", "execve")}, Birth: set("setuid", "unshare")},
		"/bin/x:0": {Phases: map[policy.Phase]syscalls.Set{policy.Run: set("read", "bpf", "uname")}},
	})
	trusted.ABIs[syscalls.X86_64].Args = map[uint32][]policy.ArgRule{
		call(t, "bind").Nr: {{Index: 1, Mask: 6, Value: 2}}, call(t, "setns").Nr: {{Index: 1, Mask: 6, Value: 2}}, // nobody made the latter
	}
	trusted.ABIs[syscalls.X86_64].Quarantined = map[uint32]string{call(t, "sync").Nr: "from the heap"}
	seen = policy.Merge(seen, of(map[policy.Phase]syscalls.Set{policy.Stop: set("sync")}, set("sync"), nil))
	seen.ABIs[syscalls.I386] = &policy.Calls{Phases: map[policy.Phase]syscalls.Set{policy.Run: syscalls.SetOf(11)}}
	got := Guard(seen, trusted)
	if got.ABIs[syscalls.I386] != nil {
		t.Error("another architecture was learned")
	}
	c := got.ABIs[syscalls.X86_64]
	if c.Quarantined[call(t, "sync").Nr] == "" {
		t.Error("doing it again lifts the quarantine")
	}
	merged := policy.Merge(trusted, got).ABIs[syscalls.X86_64].Args
	if diff := cmp.Diff(map[uint32][]policy.ArgRule{call(t, "bind").Nr: {{Index: 1, Mask: 6, Value: 2}}}, c.Args); diff != "" || len(merged[call(t, "bind").Nr]) != 1 {
		t.Errorf("with %v, other arguments were learned, %v when merged\n%s", c.Args, merged, diff)
	}
	for _, tt := range []struct {
		name      string
		got, want syscalls.Set
	}{
		{"boot", c.Phases[policy.Boot], set("bind")},
		{"run", c.Phases[policy.Run], set("read", "getrusage")},
		{"a stop that was never seen", c.Phases[policy.Stop], set("unlink", "kill")},
		{"exec", c.Exec, set("execve", "uname")},
		{"a role", c.Roles["/a:0"].Phases[policy.Run], set("read", "getrusage")},
		{"its birth", c.Roles["/a:0"].Birth, set("setuid")},
		{"a new role", c.Roles["/bin/x:0"].Phases[policy.Run], set("read", "uname")},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, tt.got.Names(syscalls.X86_64), tt.want.Names(syscalls.X86_64))
		}
	}
}
