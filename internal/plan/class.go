// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"sync"

	"github.com/whittle-sec/whittle/internal/cve"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// Why a call is in the critical class: what an intruder gains by it, whether or not a CVE is known behind it.
const (
	startsPrograms  = "starts programs"
	startsProcesses = "starts processes"
	changesRights   = "changes whose rights a process has"
	changesView     = "changes what a process sees of the system"
	reachesOut      = "makes new ways to the network"
	reachesOver     = "reaches into other processes"
	signals         = "signals other processes"
	makesCode       = "can make memory executable"
	administers     = "is for administering the kernel or the host"
	reachesKernel   = "opens a large part of the kernel"
	multiplexes     = "is many calls in one"
)

// critical is why a call is asked about even where no CVE gates it.
var critical = map[string]string{
	"execve": startsPrograms, "execveat": startsPrograms,
	// A file without a name is how a program is started that is in no image.
	"memfd_create": startsPrograms,

	// Threads too: their flags are in memory for clone3, where no filter can look.
	"clone": startsProcesses, "clone3": startsProcesses, "fork": startsProcesses, "vfork": startsProcesses,

	"setuid": changesRights, "setgid": changesRights, "setreuid": changesRights, "setregid": changesRights,
	"setresuid": changesRights, "setresgid": changesRights, "setgroups": changesRights, "setfsuid": changesRights,
	"setfsgid": changesRights, "capset": changesRights,
	"setuid32": changesRights, "setgid32": changesRights, "setreuid32": changesRights, "setregid32": changesRights,
	"setresuid32": changesRights, "setresgid32": changesRights, "setgroups32": changesRights,
	"setfsuid32": changesRights, "setfsgid32": changesRights,

	"chroot": changesView, "pivot_root": changesView, "mount": changesView, "umount": changesView, "umount2": changesView,
	"unshare": changesView, "setns": changesView, "move_mount": changesView, "open_tree": changesView,
	"open_tree_attr": changesView, "fsopen": changesView, "fsmount": changesView, "fsconfig": changesView,
	"fspick": changesView, "mount_setattr": changesView,
	// Finds files outside the container's root by a handle (Shocker).
	"open_by_handle_at": changesView, "name_to_handle_at": changesView,

	"socket": reachesOut, "bind": reachesOut, "listen": reachesOut, "connect": reachesOut,

	"ptrace": reachesOver, "process_vm_readv": reachesOver, "process_vm_writev": reachesOver, "pidfd_getfd": reachesOver,
	"process_madvise": reachesOver, "process_mrelease": reachesOver, "kcmp": reachesOver,

	"kill": signals, "tkill": signals, "tgkill": signals, "pidfd_send_signal": signals,
	"rt_sigqueueinfo": signals, "rt_tgsigqueueinfo": signals,

	// mmap can too, but every allocator needs it at any time: its rules tell that use apart.
	"mprotect": makesCode, "pkey_mprotect": makesCode,

	"bpf": reachesKernel, "perf_event_open": reachesKernel, "userfaultfd": reachesKernel, "io_uring_setup": reachesKernel,
	"io_uring_enter": reachesKernel, "io_uring_register": reachesKernel, "keyctl": reachesKernel, "add_key": reachesKernel,
	"request_key": reachesKernel, "modify_ldt": reachesKernel, "personality": reachesKernel, "fanotify_init": reachesKernel,
	"vm86": reachesKernel, "vm86old": reachesKernel, "remap_file_pages": reachesKernel, "uselib": reachesKernel,

	"init_module": administers, "finit_module": administers, "delete_module": administers, "kexec_load": administers,
	"kexec_file_load": administers, "reboot": administers, "swapon": administers, "swapoff": administers, "acct": administers,
	"quotactl": administers, "quotactl_fd": administers, "settimeofday": administers, "clock_settime": administers,
	"clock_settime64": administers, "stime": administers, "adjtimex": administers, "clock_adjtime": administers,
	"clock_adjtime64": administers, "syslog": administers, "iopl": administers, "ioperm": administers,
	"sethostname": administers, "setdomainname": administers, "vhangup": administers, "move_pages": administers,
	"migrate_pages": administers, "lsm_set_self_attr": administers,

	// The kernel sees which of the calls is meant in an argument, the CVEs' gates do not.
	"socketcall": multiplexes, "ipc": multiplexes,
}

// waits are calls in which a thread sleeps for as long as nothing happens. A signal, or the injection of a filter, ends the
// sleep, and the kernel makes the call again: under the phase of then, not of when it fell asleep.
var waits = []string{
	"read", "readv", "recvfrom", "recvmsg", "recvmmsg", "recvmmsg_time64", "accept", "accept4",
	"epoll_wait", "epoll_pwait", "epoll_pwait2", "poll", "ppoll", "ppoll_time64", "select", "_newselect", "pselect6",
	"pselect6_time64", "nanosleep", "clock_nanosleep", "clock_nanosleep_time64", "pause", "rt_sigsuspend", "sigsuspend",
	"rt_sigtimedwait", "rt_sigtimedwait_time64", "wait4", "waitid", "waitpid", "futex", "futex_time64", "futex_wait",
	"futex_waitv", "flock", "semop", "semtimedop", "semtimedop_time64", "msgrcv", "mq_timedreceive",
	"mq_timedreceive_time64", "io_getevents", "io_pgetevents", "io_pgetevents_time64",
}

// chance are calls whose time chance decides, not the service: the allocator grows when it must, a thread starts when
// there is work. Refused after the boot that happened to show them, they would fail a service for nothing gained.
var chance = []string{
	"brk", "mmap", "mmap2", "munmap", "sched_yield", "sigaltstack", "rt_sigprocmask", "sigprocmask", "getpid", "gettid",
	"set_robust_list", "rseq",
}

// multiplexers hide which call is meant from filters and gates alike. Shut, unless the policy has them.
var multiplexers = []string{"socketcall", "ipc"}

// starting is what a program needs to be started and to start others: the least that a shell is.
var starting = []string{
	"execve", "clone", "fork", "vfork", "mprotect", "kill", "write", "writev", "wait4", "waitid", "waitpid", "madvise", "mremap",
	"fcntl", "fcntl64", // to send its output elsewhere
}

// newMemory are the calls that map memory.
var newMemory = []string{"mmap", "mmap2"}

// classes of one ABI.
type classes struct {
	known    syscalls.Set
	gated    syscalls.Set // passes a gate of a known CVE
	critical syscalls.Set
	harmless syscalls.Set // neither
	waits    syscalls.Set
	chance   syscalls.Set
	starting syscalls.Set
	maps     syscalls.Set
	multi    syscalls.Set
	own      syscalls.Set // the kernel's
}

// classesOf an ABI. They are computed once, because every plan and every answer asks for them.
func classesOf(abi syscalls.ABI) *classes { return allClasses()[abi] }

var allClasses = sync.OnceValue(func() map[syscalls.ABI]*classes {
	all := make(map[syscalls.ABI]*classes)
	for _, abi := range syscalls.ABIs {
		c := &classes{
			known: syscalls.Known(abi), gated: cve.Gated(abi), own: syscalls.KernelOwn(abi),
			waits: numbers(abi, waits), chance: numbers(abi, chance), starting: numbers(abi, starting), maps: numbers(abi, newMemory),
			multi: numbers(abi, multiplexers),
		}
		for name := range critical {
			if nr, ok := syscalls.Number(abi, name); ok {
				c.critical.Add(nr)
			}
		}
		c.harmless = c.known.Minus(c.gated).Minus(c.critical)
		all[abi] = c
	}
	return all
})

// numbers of the names that the ABI has.
func numbers(abi syscalls.ABI, names []string) (s syscalls.Set) {
	for _, name := range names {
		if nr, ok := syscalls.Number(abi, name); ok && nr < syscalls.MaxNr {
			s.Add(nr)
		}
	}
	return s
}

// Critical is why a call is in the critical class, or "".
func Critical(call syscalls.Call) string { return critical[call.String()] }
