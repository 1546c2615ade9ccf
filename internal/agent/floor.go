// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"maps"

	"github.com/whittle-sec/whittle/internal/syscalls"
)

// rare is what a runtime needs after it has loaded a filter, but not each time it starts a container: a floor that was
// measured in a few starts does not have all of it, and the next start may fail.
var rare = map[string][]string{
	// It is a Go program, with threads, a garbage collector and a scheduler of its own that run as they like until execve. The
	// second line is what a new thread calls; the third was seen in some of many starts by runc 1.1.5.
	"runc": {
		"futex", "epoll_pwait", "sched_yield", "nanosleep", "tgkill", "getpid", "gettid", "rt_sigreturn", "exit_group",
		"clone", "mmap", "munmap", "mprotect", "madvise", "rseq", "set_robust_list", "sigaltstack", "rt_sigprocmask",
		"faccessat2",
	},
	// Only a process that joins a container gets its groups and its terminal's or pipes' owner at this point: without the first,
	// podman exec fails, health checks too; the others it does without, and each exec would be reported as refused.
	"crun": {"setgroups", "fchown", "statx"},
}

// withRare adds them to a floor.
func withRare(runtime string, floor map[syscalls.ABI]syscalls.Set) map[syscalls.ABI]syscalls.Set {
	all := maps.Clone(floor)
	for abi, set := range all {
		for _, name := range rare[runtime] {
			if nr, ok := syscalls.Number(abi, name); ok {
				set.Add(nr)
			}
		}
		all[abi] = set
	}
	return all
}
