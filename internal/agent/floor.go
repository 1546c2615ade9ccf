// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"maps"

	"github.com/whittle-sec/whittle/internal/syscalls"
)

// starting is what a floor depends on.
type starting struct {
	runtime    string
	noNewPrivs bool
}

// goThreads run as they like until execve: runc is a Go program, with threads, a garbage collector and a scheduler of its
// own. The second line is what a new thread calls; the third was seen in some of many starts by runc 1.1.5.
var goThreads = []string{
	"futex", "epoll_pwait", "sched_yield", "nanosleep", "tgkill", "getpid", "gettid", "rt_sigreturn", "exit_group",
	"clone", "mmap", "munmap", "mprotect", "madvise", "rseq", "set_robust_list", "sigaltstack", "rt_sigprocmask",
	"faccessat2",
}

// rare is what a runtime needs after it has loaded a filter, but not each time it starts a container: a floor that was
// measured in a few starts does not have all of it, and the next start may fail.
var rare = map[starting][]string{
	{"runc", false}: goThreads,
	{"runc", true}:  goThreads,
	// What crun 1.8.1 needs only for a process that joins a container (podman exec, health checks): its groups, and the owner
	// of its terminal or pipes. With no_new_privs all of this is done before, but for reporting.
	{"crun", false}: {"openat", "newfstatat", "ioctl", "statx", "read", "setgroups", "fchown", "umask"},
	{"crun", true}:  {"write", "umask"},
}

// withRare adds them to a floor.
func withRare(s starting, floor map[syscalls.ABI]syscalls.Set) map[syscalls.ABI]syscalls.Set {
	all := maps.Clone(floor)
	for abi, set := range all {
		for _, name := range rare[s] {
			if nr, ok := syscalls.Number(abi, name); ok {
				set.Add(nr)
			}
		}
		all[abi] = set
	}
	return all
}

// withoutAsking is a floor of the calls that cannot be held while a container starts. They are shut where they are not in the
// policy or a floor, and a shut futex ends runc's init: which of them its scheduler makes is chance, so that a policy that
// was learned in one start does not have them all.
func withoutAsking() map[syscalls.ABI]syscalls.Set {
	var set syscalls.Set
	for _, name := range beforeAnyoneAnswers {
		if nr, ok := syscalls.Number(native, name); ok {
			set.Add(nr)
		}
	}
	return map[syscalls.ABI]syscalls.Set{native: set}
}
