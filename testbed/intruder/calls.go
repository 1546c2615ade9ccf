// SPDX-License-Identifier: Apache-2.0

package intruder

import (
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/syscalls"
)

// Call with its arguments.
type Call struct {
	syscalls.Call
	Args [6]uint64
}

// Of an ABI by its name, with arguments.
func Of(abi syscalls.ABI, name string, args ...uint64) (Call, error) {
	nr, ok := syscalls.Number(abi, name)
	if !ok {
		return Call{}, fmt.Errorf("%v has no call %s", abi, name)
	}
	c := Call{Call: syscalls.Call{ABI: abi, Nr: nr}}
	copy(c.Args[:], args)
	return c, nil
}

// Named is a call of this machine with arguments that do no harm where it is let through, and with which the kernel answers
// neither EPERM nor ENOSYS, unless Mute says so: whoever gets these was refused by a filter.
func Named(name string) (Call, error) { return NamedOf(nativeABI, name) }

// NamedOf is Named for another ABI of this machine.
func NamedOf(abi syscalls.ABI, name string) (Call, error) {
	args, ok := harmless[name]
	if !ok {
		return Call{}, fmt.Errorf("no harmless arguments of %s are known", name)
	}
	return Of(abi, name, args...)
}

// Names of the calls that Named knows on this machine.
func Names() []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(harmless)), func(name string) bool {
		_, ok := syscalls.Number(nativeABI, name)
		return !ok
	})
}

// Mute tells whether the kernel itself answers EPERM to a call of a process without rights, whatever its arguments.
func Mute(name string) bool { return mute[name] }

var mute = map[string]bool{
	"init_module": true, "finit_module": true, "delete_module": true, "kexec_load": true, "pivot_root": true, "fsopen": true,
	"move_mount": true, "sethostname": true, "syslog": true, "reboot": true, "swapon": true, "acct": true, "fanotify_init": true, "setgroups": true,
}

const (
	none    = ^uint64(0)  // no descriptor, nobody
	nowhere = 1           // no address
	nobody  = 0x3fffffff  // no process
	odd     = 1 << 30     // no flag
	pathAt  = ^uint64(99) // AT_FDCWD
	setID   = 0o4755
)

// harmless arguments: what the caller would have to give is missing. What is left is what an attacker would give, because a
// judge may look at it.
var harmless = map[string][]uint64{
	// Programs and processes.
	"execve": {nowhere, nowhere, nowhere}, "execveat": {none, nowhere, nowhere, nowhere},
	"clone":  {unix.CLONE_SIGHAND | uint64(unix.SIGCHLD)}, // EINVAL without CLONE_VM
	"clone3": {nowhere, 88},
	"kill":   {nobody, uint64(unix.SIGKILL)}, "tgkill": {nobody, nobody, uint64(unix.SIGKILL)},
	"ptrace": {unix.PTRACE_SEIZE, nobody}, "process_vm_readv": {nobody, nowhere, 1, nowhere, 1}, "process_vm_writev": {nobody, nowhere, 1, nowhere, 1},
	"pidfd_getfd": {none}, "pidfd_open": {nobody}, "kcmp": {nobody, nobody}, "process_madvise": {none, nowhere, 1},
	"prlimit64": {nobody, unix.RLIMIT_CORE},
	"getpgrp":   {}, "umask": {0o77},
	// Rights.
	"setuid": {none}, "setgid": {none}, "setresuid": {none, none, none}, "setgroups": {1 << 20, nowhere},
	"capset": {nowhere, nowhere}, "personality": {0x0040000}, // ADDR_NO_RANDOMIZE, for what it executes
	"chmod": {nowhere, setID}, "fchmodat": {pathAt, nowhere, setID}, "fchmod": {none, 0o777}, "chown": {nowhere, 0, 0}, "fchown": {none, 0, 0},
	// Views.
	"unshare": {unix.CLONE_NEWUSER | 1}, "setns": {none, unix.CLONE_NEWNS}, "chroot": {nowhere},
	"mount": {nowhere, nowhere, nowhere}, "umount2": {nowhere, odd}, "pivot_root": {nowhere, nowhere}, "open_tree": {none, nowhere, odd},
	"move_mount": {none, nowhere, none, nowhere}, "fsopen": {nowhere}, "mount_setattr": {none, nowhere, odd},
	"open_by_handle_at": {none, nowhere}, "name_to_handle_at": {none, nowhere, nowhere, nowhere, odd}, "sethostname": {nowhere, 4},
	// The kernel.
	"keyctl": {10000}, "add_key": {nowhere}, "request_key": {nowhere}, "bpf": {0, nowhere, 8192}, "perf_event_open": {nowhere, 0, none, none, odd},
	"io_uring_setup": {1, nowhere}, "io_uring_enter": {none}, "io_uring_register": {none}, "userfaultfd": {1 | 4}, "fanotify_init": {odd},
	"init_module": {nowhere, 1, nowhere}, "finit_module": {none, nowhere}, "delete_module": {nowhere}, "kexec_load": {nowhere, odd},
	"modify_ldt": {1, nowhere, 16}, "seccomp": {99}, "syslog": {10}, "reboot": {}, "swapon": {nowhere}, "acct": {nowhere},
	"settimeofday": {nowhere}, "clock_settime": {99999, nowhere}, "adjtimex": {nowhere},
	// Memory.
	"mprotect": {nowhere, pageSize, readWriteExecute}, "pkey_mprotect": {nowhere, pageSize, readWriteExecute, none},
	"mmap": {0, 0, readWriteExecute, unix.MAP_PRIVATE | unix.MAP_ANONYMOUS, none}, "memfd_create": {nowhere, odd},
	"remap_file_pages": {nowhere, 0, 0, odd}, "mremap": {nowhere}, "mbind": {nowhere, 1, 99}, "madvise": {nowhere, pageSize, 4},
	// The network.
	"socket": {unix.AF_INET, unix.SOCK_STREAM | odd}, "connect": {none, nowhere, 16}, "bind": {none, nowhere, 16}, "listen": {none, 1},
	"sendto": {none, nowhere, 1}, "sendmsg": {none, nowhere}, "setsockopt": {none, 263, 5, nowhere, 4}, "socketpair": {unix.AF_UNIX, unix.SOCK_STREAM | odd},
	// Files and messages.
	"open": {nowhere}, "creat": {nowhere, 0o755}, "unlink": {nowhere}, "unlinkat": {pathAt, nowhere}, "rename": {nowhere, nowhere}, "symlink": {nowhere, nowhere},
	"link": {nowhere, nowhere}, "mkdir": {nowhere, 0o755}, "mknod": {nowhere, unix.S_IFCHR | 0o666, 0x101}, "truncate": {nowhere, 0},
	"dup2": {none, none}, "dup3": {none, none, unix.O_CLOEXEC}, "ioctl": {none, unix.TIOCSTI, nowhere}, "inotify_init1": {1},
	"splice": {none, 0, none, 0, 1}, "vmsplice": {none, nowhere, 1}, "tee": {none, none - 1, 1}, "sendfile": {none, none, 0, 1},
	"msgget": {0x77777777, 0}, "semget": {0x77777777, 0, 0}, "shmget": {0x77777777, 0, 0}, "shmat": {none}, "timer_create": {99999, nowhere},
	"sched_setaffinity": {nobody, 8, nowhere}, "sched_setscheduler": {nobody, 99, nowhere}, "setpriority": {99}, "ioprio_set": {99},
	"utimensat": {none, nowhere, nowhere}, "setxattr": {nowhere, nowhere}, "mq_open": {nowhere, unix.O_CREAT}, "signalfd4": {none, nowhere, 99},
}
