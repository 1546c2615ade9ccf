// SPDX-License-Identifier: Apache-2.0

package judge

import "github.com/whittle-sec/whittle/internal/syscalls"

// Why a call never passes by inference.
const (
	otherPrograms = "it starts a program, and whether that program belongs here is for a person to say"
	otherTasks    = "it reaches into other processes"
	otherView     = "it changes what a process sees of the system, which is what containers are made of"
	otherHandles  = "it opens files of the host by a handle, around the container's root"
	kernelKeys    = "it works on the kernel's keyrings, which containers share"
	kernelCode    = "it runs code in the kernel"
	kernelSurface = "it opens a large part of the kernel to whoever makes it"
	aroundFilters = "its operations pass by every filter"
	pageFaults    = "it stops the kernel in the middle of what it does, which is how races are won"
	hostDevices   = "it administers the host"
	hostClock     = "it sets the clock of the host"
	oldHardware   = "it is for hardware or programs of long ago"
	manyInOne     = "it is many calls in one, and which is meant cannot be told from the number"
)

// never are the calls that nothing but a person gives to a service that was not seen to need them. Whoever wants into
// the kernel or out of the container needs one of them, and whatever the panel knows an intruder can bring about: the
// program imports execve, services of the kind mount.
//
// Not among them, though critical: what services do late for reasons of their own (fork, signals, sockets, rights), which
// needs much evidence instead; memfd_create and name_to_handle_at, which give nothing without a call that is here.
var never = map[string]string{
	"execve": otherPrograms, "execveat": otherPrograms,

	"ptrace": otherTasks, "process_vm_readv": otherTasks, "process_vm_writev": otherTasks, "pidfd_getfd": otherTasks,
	"process_madvise": otherTasks, "process_mrelease": otherTasks, "kcmp": otherTasks,

	"unshare": otherView, "setns": otherView, "mount": otherView, "umount": otherView, "umount2": otherView,
	"move_mount": otherView, "open_tree": otherView, "open_tree_attr": otherView, "fsopen": otherView,
	"fsmount": otherView, "fsconfig": otherView, "fspick": otherView, "mount_setattr": otherView, "pivot_root": otherView,
	// A second chroot is the old way out of the first. Daemons that lock themselves up do so while they are learned.
	"chroot": otherView,
	// Shocker.
	"open_by_handle_at": otherHandles,

	"keyctl": kernelKeys, "add_key": kernelKeys, "request_key": kernelKeys,
	"bpf": kernelSurface, "perf_event_open": kernelSurface, "fanotify_init": kernelSurface, "modify_ldt": kernelSurface,
	"io_uring_setup": aroundFilters, "io_uring_enter": aroundFilters, "io_uring_register": aroundFilters,
	"userfaultfd": pageFaults,

	"init_module": kernelCode, "finit_module": kernelCode, "create_module": kernelCode, "delete_module": kernelCode,
	"kexec_load": kernelCode, "kexec_file_load": kernelCode,

	"reboot": hostDevices, "swapon": hostDevices, "swapoff": hostDevices, "acct": hostDevices, "quotactl": hostDevices,
	"quotactl_fd": hostDevices, "syslog": hostDevices, "iopl": hostDevices, "ioperm": hostDevices, "vhangup": hostDevices,
	"sethostname": hostDevices, "setdomainname": hostDevices, "move_pages": hostDevices, "migrate_pages": hostDevices,
	"nfsservctl": hostDevices, "lsm_set_self_attr": hostDevices,

	"settimeofday": hostClock, "clock_settime": hostClock, "clock_settime64": hostClock, "stime": hostClock,
	"adjtimex": hostClock, "clock_adjtime": hostClock, "clock_adjtime64": hostClock,

	"vm86": oldHardware, "vm86old": oldHardware, "uselib": oldHardware, "_sysctl": oldHardware,
	"socketcall": manyInOne, "ipc": manyInOne,
}

// StartsProgram tells the calls that put another program in a process's place. The panel never lets them through, as nothing
// that it can look at tells a service's helper from a shell. An oracle that aborts before an intruder comes so far can.
func StartsProgram(call syscalls.Call) bool { return never[call.String()] == otherPrograms }

// Never is why a call never passes by inference, or "". Learning it needs a person, too; see Suspect for the exceptions.
func Never(call syscalls.Call) string { return never[call.String()] }
