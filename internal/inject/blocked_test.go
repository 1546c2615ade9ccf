// SPDX-License-Identifier: Apache-2.0

package inject

import (
	"os"
	"strings"
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

// A thread that sleeps in a call goes on as if nothing had happened, under the filter: alone, and in a frozen group, where
// the freezer interrupts it too.
func TestBlockedCallsGoOn(t *testing.T) {
	testenv.NeedRoot(t)
	builds := map[syscalls.ABI]string{native: compileC(t, "block")}
	if native == syscalls.X86_64 {
		testenv.NeedI386(t)
		builds[syscalls.I386] = compileC(t, "block", i386Flags()...)
	}
	for abi, exe := range builds {
		for call, want := range blocking {
			for _, how := range []string{"alone", "frozen"} {
				t.Run(abi.String()+"/"+call+"/"+how, func(t *testing.T) {
					r := Request{Program: noMkdir(t)}
					var c *child
					if how == "frozen" {
						r.Cgroup = newGroup(t)
						c = startAs(t, inGroupAttr(t, r.Cgroup), exe, call, "150")
					} else {
						c = start(t, exe, call, "150")
						r.PIDs = []int{c.Process.Pid}
					}
					c.line(t)
					if call != "spin" {
						until(t, "it to sleep", func() bool { return stateOf(c.Process.Pid) == 'S' })
					}
					got := inject(t, r)
					for _, p := range got.Processes {
						if p.PID == c.Process.Pid && (p.How != ByTSync || p.ABI != abi) {
							t.Errorf("got %+v, want it by tsync and of ABI %s", p, abi)
						}
					}
					if got, want := c.line(t), want+" whole filtered"; got != want {
						t.Errorf("%s: got %q, want %q", call, got, want)
					}
					if _, err := os.Stat(procPath(c.Process.Pid, "")); err == nil && strings.Contains(stateName(c.Process.Pid), "T") {
						t.Error("it is stopped")
					}
				})
			}
		}
	}
}

func stateName(pid int) string { return string(rune(stateOf(pid))) }
