// SPDX-License-Identifier: Apache-2.0

package syscalls

import "sync"

// ownNames are calls that a policy allows whether or not they were observed, because the kernel makes them on a
// program's behalf or decides by itself when a program makes them. Learning cannot be relied on to see them.
var ownNames = [...]string{
	// The return from a signal handler. A service that got no signal while it was learned has not made it.
	"rt_sigreturn",
	"sigreturn", // i386, handlers without SA_SIGINFO
	// The kernel puts this number into the register itself when it resumes nanosleep, poll or futex after a stop or a
	// freeze. Refused, the interrupted call fails with EPERM.
	"restart_syscall",
	// Refusing to end a thread or a process gains nothing, and libc executes hlt after it.
	"exit",
	"exit_group",
	// Behind the vDSO: no call is made while the clock source can be read from user space. The kernel switches to one
	// that cannot (tsc → hpet) at any time, and on some virtual machines a program starts with one.
	"clock_gettime",
	"clock_gettime64", // i386: what vdso32 falls back to
	"gettimeofday",
	"time",
	"clock_getres",
	"clock_getres_time64", // i386
}

// KernelOwn is the calls of the ABI that are always allowed; own.go gives the reason for each.
func KernelOwn(a ABI) Set {
	if int(a) >= len(tables) {
		return Set{}
	}
	return own()[a]
}

// own is indexed by ABI. It is computed once, because whoever decides about a call asks for it.
var own = sync.OnceValue(func() (sets [len(tables)]Set) {
	for _, a := range ABIs {
		sets[a] = ownOf(a)
	}
	return sets
})

func ownOf(a ABI) (s Set) {
	for _, name := range ownNames {
		s.addName(a, name)
	}
	if a != ARM64 {
		s.addName(a, "getcpu") // in the vDSO of x86; on arm64 it is a call like any other
	}
	if a != I386 {
		// In the vDSO of x86-64 since 6.11 and of arm64 since 6.12. It makes the real call whenever the kernel has reseeded
		// since the thread's last one, which can be minutes after the last chance to observe it.
		s.addName(a, "getrandom")
	}
	return s
}

func (s *Set) addName(a ABI, name string) {
	if nr, ok := lookupNumber(a, name); ok {
		s.Add(nr)
	}
}
