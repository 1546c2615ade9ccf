// SPDX-License-Identifier: Apache-2.0

package judge

import (
	"fmt"

	"github.com/whittle-sec/whittle/internal/plan"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// taught are calls of the veto list that services legitimately teach: they start their helpers and lock themselves up
// before they serve. By inference they pass no more than the others.
var taught = map[string]bool{"execve": true, "execveat": true, "chroot": true}

// byChance are gated or critical calls whose appearing in one run and not in another is chance, or load, not an intruder:
// the memory was short, a response was large, somebody asked for a snapshot. That they were seen once is no reason to
// refuse them.
var byChance = map[string]bool{
	"mprotect": true, "madvise": true, "mremap": true, "clock_nanosleep": true, "write": true, "waitid": true,
	"clone": true, "clone3": true, "fork": true, "vfork": true,
	"kill": true, "tkill": true, "tgkill": true, "rt_sigqueueinfo": true, "rt_tgsigqueueinfo": true,
	"sendto": true, "sendmsg": true, "sendmmsg": true, "recvfrom": true, "recvmsg": true, "recvmmsg": true,
	"setsockopt": true, "getsockopt": true, "preadv2": true, "pwritev2": true, "writev": true,
	"epoll_ctl": true, "epoll_wait": true, "epoll_pwait": true, "epoll_pwait2": true, "epoll_ctl_old": true,
	"inotify_init": true, "inotify_init1": true, "inotify_add_watch": true, "socketpair": true,
}

// minRuns are needed before a call that only one of them made is remarkable.
const minRuns = 3

// Suspect is why a call that was seen while learning must be quarantined, or "": whoever is inside from the first second
// must not be able to teach a policy what he needs. origin is from where it was made first, runs is in how many of the
// containers of the workload it was seen. It is
//
//   - any call that was made from memory that is no program's: injected code;
//   - the veto list (see Never), but for the calls in taught. A service that needs one of the others to work is known by
//     its failure, and a person lifts the quarantine;
//   - a call behind a known vulnerability, or critical, that one run of at least three made, and that is not in byChance.
//     With fewer runs one of them is half of all that is known.
func Suspect(call syscalls.Call, origin Class, runs, of int) (why string) {
	name := call.String()
	switch {
	case origin.vetoed():
		return "made while learning from " + injectedWord(origin) + ", which is where injected code is"
	case Never(call) != "" && !taught[name]:
		return "made while learning, but never taken over without a person: " + Never(call)
	case of < minRuns || runs > 1 || byChance[name]:
		return ""
	}
	risk := plan.Critical(call)
	if risk == "" {
		if set := gates().gated[call.ABI]; !set.Has(call.Nr) {
			return ""
		}
		risk = "is behind known vulnerabilities"
	}
	return fmt.Sprintf("made in 1 of %d runs only, and it %s", of, risk)
}
