// SPDX-License-Identifier: Apache-2.0

package syscalls

import "sync"

// The relation is "whoever may make this can do that too", by name, for all ABIs at once; names that an ABI lacks fall
// out. It is about the number alone: flags that are wider in a later call (openat2, clone3) and constraints on arguments
// are the caller's business. io_uring, which does many of these without a call, is not in it.

// same are groups in which each member does what the others do.
var same = [...][]string{
	// Files by path.
	{"open", "openat", "openat2"},
	{"stat", "lstat", "newfstatat", "statx", "stat64", "lstat64", "fstatat64", "oldstat", "oldlstat"},
	{"fstat", "fstat64", "oldfstat"},
	{"statfs", "statfs64"},
	{"fstatfs", "fstatfs64"},
	{"access", "faccessat", "faccessat2"},
	{"chmod", "fchmodat", "fchmodat2"},
	{"chown", "lchown", "fchownat", "chown32", "lchown32"},
	{"fchown", "fchown32"},
	{"utime", "utimes", "futimesat", "utimensat", "utimensat_time64"},
	{"mkdir", "mkdirat"},
	{"mknod", "mknodat"},
	{"link", "linkat"},
	{"symlink", "symlinkat"},
	{"readlink", "readlinkat"},
	{"rename", "renameat", "renameat2"},
	{"unlink", "unlinkat", "rmdir"}, // unlinkat takes AT_REMOVEDIR
	{"umount", "umount2"},
	{"truncate", "truncate64"},
	{"ftruncate", "ftruncate64"},
	{"getdents", "getdents64", "readdir"},
	{"setxattr", "lsetxattr", "fsetxattr", "setxattrat"},
	{"getxattr", "lgetxattr", "fgetxattr", "getxattrat"},
	{"listxattr", "llistxattr", "flistxattr", "listxattrat"},
	{"removexattr", "lremovexattr", "fremovexattr", "removexattrat"},
	// File descriptors.
	{"dup", "dup2", "dup3"},
	{"pipe", "pipe2"},
	{"eventfd", "eventfd2"},
	{"signalfd", "signalfd4"},
	{"inotify_init", "inotify_init1"},
	{"epoll_create", "epoll_create1"},
	{"epoll_wait", "epoll_pwait", "epoll_pwait2"},
	{"epoll_ctl", "epoll_ctl_old"},
	{"poll", "ppoll", "ppoll_time64"},
	{"select", "_newselect", "pselect6", "pselect6_time64"},
	{"read", "readv"},
	{"write", "writev"},
	{"pread64", "preadv", "preadv2"},
	{"pwrite64", "pwritev", "pwritev2"},
	{"sendfile", "sendfile64"},
	{"fcntl", "fcntl64"},
	{"lseek", "_llseek"},
	{"fadvise64", "fadvise64_64"},
	{"io_pgetevents", "io_pgetevents_time64"},
	// Sockets.
	{"accept", "accept4"},
	{"sendmsg", "sendmmsg"},
	{"recvmsg", "recvmmsg", "recvmmsg_time64"},
	// Processes, memory and signals.
	{"execve", "execveat"},
	{"clone", "clone3"},
	{"fork", "vfork"},
	{"wait4", "waitpid"},
	{"mmap", "mmap2"},
	{"tkill", "tgkill"},
	{"rt_sigaction", "sigaction", "signal"},
	{"rt_sigprocmask", "sigprocmask", "sgetmask", "ssetmask"},
	{"rt_sigpending", "sigpending"},
	{"rt_sigsuspend", "sigsuspend", "pause"},
	{"rt_sigtimedwait", "rt_sigtimedwait_time64"},
	{"rt_sigreturn", "sigreturn"},
	{"getrlimit", "ugetrlimit"},
	{"uname", "olduname", "oldolduname"},
	{"futex", "futex_time64"},
	{"semtimedop", "semtimedop_time64"},
	{"mq_timedsend", "mq_timedsend_time64"},
	{"mq_timedreceive", "mq_timedreceive_time64"},
	{"sched_rr_get_interval", "sched_rr_get_interval_time64"},
	// Credentials: i386 has 16-bit and 32-bit ids.
	{"getuid", "getuid32"}, {"geteuid", "geteuid32"}, {"getgid", "getgid32"}, {"getegid", "getegid32"},
	{"setuid", "setuid32"}, {"setgid", "setgid32"},
	{"setreuid", "setreuid32"}, {"setregid", "setregid32"},
	{"setresuid", "setresuid32"}, {"setresgid", "setresgid32"},
	{"getresuid", "getresuid32"}, {"getresgid", "getresgid32"},
	{"getgroups", "getgroups32"}, {"setgroups", "setgroups32"},
	{"setfsuid", "setfsuid32"}, {"setfsgid", "setfsgid32"},
	// Time.
	{"clock_gettime", "clock_gettime64"},
	{"clock_settime", "clock_settime64"},
	{"clock_adjtime", "clock_adjtime64"},
	{"clock_getres", "clock_getres_time64"},
	{"clock_nanosleep", "clock_nanosleep_time64"},
	{"timer_gettime", "timer_gettime64"},
	{"timer_settime", "timer_settime64"},
	{"timerfd_gettime", "timerfd_gettime64"},
	{"timerfd_settime", "timerfd_settime64"},
}

// covers are the one-way cases: the wider calls can do what the name does, and more that it cannot. So a policy with fork
// does not cover clone, which makes namespaces, and one with recvfrom does not cover recvmsg, which receives descriptors.
var covers = map[string][]string{
	"creat":          {"open"},
	"fstat":          {"newfstatat", "fstatat64", "statx"}, // AT_EMPTY_PATH
	"fchmod":         {"fchmodat2"},
	"fchown":         {"fchownat"},
	"read":           {"preadv2"}, // offset -1 is the file's position
	"write":          {"pwritev2"},
	"readdir":        {"getdents64"},
	"io_getevents":   {"io_pgetevents"},
	"sendto":         {"sendmsg"},
	"recvfrom":       {"recvmsg"},
	"fork":           {"clone"},
	"wait4":          {"waitid"},
	"tkill":          {"kill"},
	"kill":           {"pidfd_send_signal"},
	"getpgrp":        {"getpgid"},
	"getrlimit":      {"prlimit64"},
	"setrlimit":      {"prlimit64"},
	"nice":           {"setpriority"},
	"sched_setparam": {"sched_setscheduler", "sched_setattr"},
	"sched_setscheduler": {
		"sched_setattr",
	},
	"sched_getparam":     {"sched_getattr"},
	"sched_getscheduler": {"sched_getattr"},
	"futex_wait":         {"futex", "futex_waitv"},
	"futex_wake":         {"futex"},
	"semop":              {"semtimedop"},
	"setuid":             {"setreuid"},
	"setreuid":           {"setresuid"},
	"setgid":             {"setregid"},
	"setregid":           {"setresgid"},
	"alarm":              {"setitimer"},
	"nanosleep":          {"clock_nanosleep"},
	"time":               {"gettimeofday"},
	"gettimeofday":       {"clock_gettime"},
	"stime":              {"settimeofday"},
	"settimeofday":       {"clock_settime"},
	"adjtimex":           {"clock_adjtime"},
}

// multiplexers are i386's calls whose first argument says which of these is meant. One that is allowed allows all.
var multiplexers = map[string][]string{
	"socketcall": {"socket", "bind", "connect", "listen", "accept", "accept4", "getsockname", "getpeername", "socketpair",
		"send", "recv", "sendto", "recvfrom", "shutdown", "setsockopt", "getsockopt", "sendmsg", "recvmsg", "sendmmsg", "recvmmsg"},
	"ipc": {"semop", "semtimedop", "semget", "semctl", "msgget", "msgsnd", "msgrcv", "msgctl", "shmget", "shmat", "shmdt", "shmctl"},
}

// Equivalents of a call are the calls of its ABI that can do what it does, itself among them. They are where a policy
// without the call may still let the operation through. The relation has a direction: see covers. A call that is in no
// group has only itself; one past MaxNr has none.
func Equivalents(c Call) (s Set) {
	if c.Nr >= MaxNr {
		return s
	}
	if name, ok := lookupName(c.ABI, c.Nr); ok {
		return EquivalentsOf(c.ABI, name)
	}
	s.Add(c.Nr)
	return s
}

// EquivalentsOf is Equivalents for a name that the ABI need not have: i386 reaches accept only through accept4 and
// socketcall. It is empty when no call of the ABI does what the name says.
func EquivalentsOf(a ABI, name string) (s Set) {
	s.addName(a, name)
	for _, other := range reach()[name] {
		s.addName(a, other)
	}
	return s
}

// reach is the transitive closure of same and covers by name, computed once.
var reach = sync.OnceValue(func() map[string][]string {
	edges := map[string][]string{}
	for _, group := range same {
		for _, from := range group {
			edges[from] = append(edges[from], group...)
		}
	}
	for from, to := range covers {
		edges[from] = append(edges[from], to...)
	}
	for mux, calls := range multiplexers {
		for _, from := range calls {
			edges[from] = append(edges[from], mux)
		}
	}
	closed := make(map[string][]string, len(edges))
	for from := range edges {
		closed[from] = closure(edges, from)
	}
	return closed
})

// closure is every name that can be reached from one, without that one.
func closure(edges map[string][]string, from string) (names []string) {
	seen := map[string]bool{from: true}
	for next := []string{from}; len(next) > 0; {
		at := next[0]
		next = next[1:]
		for _, to := range edges[at] {
			if !seen[to] {
				seen[to] = true
				names = append(names, to)
				next = append(next, to)
			}
		}
	}
	return names
}
