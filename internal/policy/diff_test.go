// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/whittle-sec/whittle/internal/syscalls"
)

func TestDiff(t *testing.T) {
	a, b := example(t), Normal(example(t))
	if got := Diff(a, b); len(got) != 0 {
		t.Errorf("Diff of equals = %v", got)
	}
	c := b.ABIs[x86]
	remove := func(phase Phase, name string) {
		s := c.Phases[phase]
		s.Remove(nr(t, x86, name))
		c.Phases[phase] = s
	}
	remove(Run, "execve")
	remove(Stop, "unlink")
	c.Floor.Add(nr(t, x86, "futex"))
	c.Exec = syscalls.Set{}
	delete(c.Roles, "/bin/sh:0")
	c.Args[nr(t, x86, "socket")] = c.Args[nr(t, x86, "socket")][1:]
	c.Denied[nr(t, x86, "keyctl")] = DeniedCall{Errno: ENOSYS, Count: 1}
	delete(b.ABIs, syscalls.I386)
	want := strings.TrimSpace(`
- execve  run  seen 3× by /bin/sh:0
- unlink  stop  granted: an operator allowed it
+ futex  floor
- ioctl  exec
- read  exec
- write  run of /bin/sh:0
- socket  rule: argument 0 & 0xffffffff = 0x1
- keyctl  denied with EPERM
+ keyctl  denied with ENOSYS
- getpid (i386)  boot`)
	var got []string
	for _, change := range Diff(a, b) {
		got = append(got, change.String())
	}
	if diff := cmp.Diff(want, strings.Join(got, "\n")); diff != "" {
		t.Errorf("Diff (-want +got):\n%s", diff)
	}
	back := Diff(b, a)
	if len(back) != len(got) {
		t.Errorf("the other way round %d changes, want %d", len(back), len(got))
	}
	if len(Diff(Policy{}, a)) == 0 || len(Diff(a, Policy{})) == 0 {
		t.Error("no difference to the empty policy")
	}
}

func TestExplain(t *testing.T) {
	p := example(t)
	for _, tc := range []struct {
		name    string
		call    syscalls.Call
		allowed bool
		errno   int32
		want    []string
	}{
		{"seen", call(t, "execve"), true, 0, []string{
			"execve is allowed to the service in the phase run.", "in the floor",
			"Seen about 3 times in 1 container, by /bin/sh:0.", "First seen 33s and last seen 5m57s after a container's start."}},
		{"phases", call(t, "read"), true, 0, []string{
			"in the phases boot and run.", "not seen in the phase stop", "also in the exec lane"}},
		{"birth", call(t, "setuid"), true, 0, []string{"/usr/bin/redis-server:0 makes it only while starting"}},
		{"granted", call(t, "unlink"), true, 0, []string{"it was granted: an operator allowed it."}},
		{"arguments", call(t, "socket"), true, EPERM, []string{
			"Only with these arguments: argument 0 & 0xffffffff = 0x1 or argument 0 & 0xffffffff = 0x2, and argument 2 = 0x0. With others it is answered with EPERM."}},
		{"own", call(t, "rt_sigreturn"), true, 0, []string{"rt_sigreturn is allowed always"}},
		{"exec lane", call(t, "ioctl"), false, EPERM, []string{"in the exec lane only", "For the service it is refused"}},
		{"not seen", call(t, "mount"), false, EPERM, []string{
			"mount is refused: it was not seen in 2 observed containers.", "EPERM (operation not permitted)",
			"policy is partial, so the call may have been missed: 1 of 2 containers was already running.",
			"becomes allowed when the workload is learned again"}},
		{"falls back", call(t, "clone3"), false, ENOSYS, []string{"ENOSYS (no such call): glibc's pthread_create"}},
		{"denied", call(t, "keyctl"), false, EPERM, []string{"asked for it 4 times while it was learned and another filter answered EPERM"}},
		{"lived with", call(t, "io_uring_setup"), false, ENOSYS, []string{"asked for it 1 time", "the answer that it was seen to live with"}},
		{"equivalent", call(t, "openat"), false, EPERM, []string{"The same can be done with open, which is allowed."}},
		{"newer than the table", syscalls.Call{ABI: x86, Nr: 900}, false, ENOSYS, []string{"#900 is refused", "newer than Whittle's table"}},
		{"past every set", syscalls.Call{ABI: x86, Nr: 1 << 20}, false, ENOSYS, []string{"newer than Whittle's table"}},
		{"ABI", syscalls.Call{ABI: syscalls.ARM64, Nr: 1}, false, ENOSYS, []string{"never seen using the arm64 system calls"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := Explain(p, tc.call)
			if got.Allowed != tc.allowed || got.Errno != tc.errno {
				t.Errorf("Explain(%v): allowed %t errno %d, want %t %d", tc.call, got.Allowed, got.Errno, tc.allowed, tc.errno)
			}
			for _, want := range tc.want {
				if !strings.Contains(got.String(), want) {
					t.Errorf("Explain(%v) lacks %q:\n%s", tc.call, want, got)
				}
			}
		})
	}
}

// Whatever a container is called, no control character reaches the terminal.
func TestExplainIsPrintable(t *testing.T) {
	p := example(t)
	p.Partial = []string{"\x1b[2J"}
	p.ABIs[x86].Evidence[0] = Evidence{Source: "observed\r", Count: 1, Roles: []string{"/bin/\x1b]0;x\a:0"}, Reason: "\x00"}
	p.ABIs[x86].Roles["\x1b:0"] = RoleCalls{Birth: set(t, x86, "read")}
	for _, c := range []syscalls.Call{{ABI: x86, Nr: 0}, call(t, "mount")} {
		if got := Explain(p, c).String(); strings.ContainsAny(got, "\x1b\a\r\x00") {
			t.Errorf("Explain(%v) = %q", c, got)
		}
	}
	for _, change := range Diff(Policy{}, p) {
		if strings.ContainsAny(change.String(), "\x1b\a\r\x00") {
			t.Errorf("%q", change.String())
		}
	}
}
