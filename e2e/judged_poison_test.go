// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/testenv"
)

// TestPoisonedLearning: whoever is inside from the first second teaches nothing that never passes, and a person can still
// allow it.
func TestPoisonedLearning(t *testing.T) {
	t.Parallel()
	testenv.NeedBPF(t)
	d := startAgent(t, noEngine...)
	poison := []int{unix.SYS_UNSHARE, unix.SYS_SETNS, unix.SYS_KEYCTL, unix.SYS_BPF}
	ms := mastersOf(t, d, nil)
	s := ms.start(t, "poisoned")
	for _, nr := range poison {
		s.does("call", nr, 3)
	}
	s.does("call", unix.SYS_PERSONALITY, 3)
	s.quit()
	d.forgotten()
	ms.workload = only(t, d, func(api.Summary) bool { return true }).Workload.ID()
	shown := d.whittle("policy", "show", ms.workload)
	for _, name := range []string{"unshare", "setns", "keyctl", "bpf"} {
		if !strings.Contains(shown, name) || !strings.Contains(shown, "QUARANTINED") {
			t.Errorf("policy show does not say that %s is in quarantine: %s", name, shown)
		}
	}
	d.whittle("policy", "mode", ms.workload, "enforce")
	held := ms.start(t, "held")
	held.supervised()
	held.allowed(unix.SYS_PERSONALITY, 3)
	for _, nr := range poison {
		if m := held.does("call", nr, 3); m.good != 0 || m.errno != unix.EPERM && m.errno != unix.ENOSYS {
			t.Errorf("call %d: %d went through, the last failed with %v", nr, m.good, m.errno)
		}
	}
	d.whittle("policy", "allow", ms.workload, "unshare")
	held.allowed(unix.SYS_UNSHARE, 3)
	if m := held.does("call", unix.SYS_SETNS, 1); m.good != 0 || m.errno != unix.EPERM {
		t.Errorf("setns: %+v", m)
	}
}
