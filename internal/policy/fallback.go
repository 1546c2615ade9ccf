// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"sync"

	"github.com/whittle-sec/whittle/internal/syscalls"
)

// fallback is a call that is answered with ENOSYS when it is refused, and why. The C library or the programs that make
// it use an older call instead, but only when they are told that the kernel lacks it: EPERM reaches the program as a
// failure of what it wanted to do. Refusing such a call costs nothing as long as its older equivalent is allowed.
type fallback struct{ name, reason string }

var fallbacks = []fallback{
	// Every program with threads: pthread_create and posix_spawn of glibc 2.34 and later.
	{"clone3", "glibc's pthread_create and posix_spawn use clone instead, on ENOSYS only"},
	{"openat2", "programs that restrict path lookup use openat instead, on ENOSYS only"},
	{"faccessat2", "glibc's faccessat uses faccessat and fstatat instead, on ENOSYS only"},
	{"fchmodat2", "glibc's fchmodat goes through /proc/self/fd instead, on ENOSYS only"},
	{"statx", "glibc's statx is emulated with fstatat, on ENOSYS only"},
	{"renameat2", "glibc's renameat2 without flags uses renameat instead, on ENOSYS only"},
	{"preadv2", "glibc's preadv2 without flags uses preadv instead, on ENOSYS only"},
	{"pwritev2", "glibc's pwritev2 without flags uses pwritev instead, on ENOSYS only"},
	{"execveat", "glibc's fexecve uses execve on /proc/self/fd instead, on ENOSYS only"},
	{"getrandom", "glibc's arc4random reads /dev/urandom instead on ENOSYS, and aborts on anything else"},
	{"close_range", "programs close one descriptor after the other instead; several take EPERM for a fatal error"},
	{"rseq", "the C library and allocators go on without it, as on a kernel that lacks it"},
	{"epoll_pwait2", "event loops use epoll_pwait instead, on ENOSYS only"},
	{"futex_waitv", "callers use futex instead, on ENOSYS only"},
	{"membarrier", "callers use slower barriers instead, on ENOSYS only"},

	// 32-bit ABIs: glibc and musl try the 64-bit time call first and use the 32-bit one on ENOSYS only.
	{"clock_gettime64", time64}, {"clock_settime64", time64}, {"clock_adjtime64", time64},
	{"clock_getres_time64", time64}, {"clock_nanosleep_time64", time64},
	{"timer_gettime64", time64}, {"timer_settime64", time64},
	{"timerfd_gettime64", time64}, {"timerfd_settime64", time64},
	{"utimensat_time64", time64}, {"pselect6_time64", time64}, {"ppoll_time64", time64},
	{"io_pgetevents_time64", time64}, {"recvmmsg_time64", time64},
	{"mq_timedsend_time64", time64}, {"mq_timedreceive_time64", time64}, {"semtimedop_time64", time64},
	{"rt_sigtimedwait_time64", time64}, {"futex_time64", time64}, {"sched_rr_get_interval_time64", time64},
}

const time64 = "the C library uses the call with 32-bit times instead, on ENOSYS only"

// fallbackReasons is fallbacks by number.
var fallbackReasons = sync.OnceValue(func() map[syscalls.Call]string {
	reasons := make(map[syscalls.Call]string)
	for _, abi := range syscalls.ABIs {
		for _, f := range fallbacks {
			if nr, ok := syscalls.Number(abi, f.name); ok {
				reasons[syscalls.Call{ABI: abi, Nr: nr}] = f.reason
			}
		}
	}
	return reasons
})

// FallsBack reports whether callers do without the call when, and only when, they are told ENOSYS.
func FallsBack(call syscalls.Call) bool { return fallbackReasons()[call] != "" }
