// SPDX-License-Identifier: Apache-2.0

package inject

import (
	"testing"

	"github.com/whittle-sec/whittle/internal/syscalls"
	"github.com/whittle-sec/whittle/internal/testenv"
)

// What each call gives when nobody interrupts it: result and errno.
var blocking = map[string]string{
	"nanosleep": "0 0", "clock_nanosleep": "0 0", "poll": "0 0", "ppoll": "0 0", "select": "0 0", "pselect": "0 0",
	"futex": "-1 110", "sem_timedwait": "-1 110", "read": "1 0", "wait4": "1 0", "pause": "-1 4", "sigsuspend": "-1 4",
	"epoll_wait": "0 0", "epoll_pwait": "0 0", "sigtimedwait": "-1 11", "recv": "-1 11", "semop": "-1 11", "spin": "0 0",
}

// A thread that sleeps in a call goes on as if nothing had happened, under the filter: one by one, and in a frozen group,
// where the freezer interrupts it too.
func TestBlockedCallsGoOn(t *testing.T) {
	testenv.NeedRoot(t)
	builds := map[syscalls.ABI]string{native: compileC(t, "block")}
	if native == syscalls.X86_64 {
		testenv.NeedI386(t)
		builds[syscalls.I386] = compileC(t, "block", i386Flags()...)
	}
	for abi, exe := range builds {
		for _, noFreeze := range []bool{false, true} {
			t.Run(abi.String()+map[bool]string{false: "/frozen", true: "/one by one"}[noFreeze], func(t *testing.T) {
				group := newGroup(t)
				running := map[string]*child{}
				for call := range blocking {
					c := startAs(t, inGroupAttr(t, group), exe, call, "1500")
					c.line(t)
					running[call] = c
				}
				for call, c := range running {
					until(t, call+" to sleep", func() bool { return call == "spin" || stateOf(c.Process.Pid) == 'S' })
				}
				byPID := map[int]Process{}
				for _, p := range inject(t, Request{Cgroup: group, Program: noMkdir(t), NoFreeze: noFreeze}).Processes {
					byPID[p.PID] = p
				}
				for call, c := range running {
					if p := byPID[c.Process.Pid]; p.How != ByTSync || p.ABI != abi {
						t.Errorf("%s: got %+v, want it by tsync and of ABI %s", call, p, abi)
					}
					if got, want := c.line(t), blocking[call]+" whole filtered"; got != want {
						t.Errorf("%s: got %q, want %q", call, got, want)
					}
				}
			})
		}
	}
}
