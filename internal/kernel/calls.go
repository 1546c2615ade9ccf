// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"fmt"

	"github.com/cilium/ebpf"

	"github.com/whittle-sec/whittle/internal/syscalls"
)

const (
	fastNumbers = 512
	numProps    = 8 * fastNumbers
)

// waits end a burst and a birth: the thread has nothing more to do until something happens outside it.
var waits = []string{
	"epoll_wait", "epoll_pwait", "epoll_pwait2", "poll", "ppoll", "ppoll_time64", "select", "_newselect", "pselect6",
	"pselect6_time64", "accept", "accept4", "nanosleep", "clock_nanosleep", "clock_nanosleep_time64", "wait4", "waitpid",
	"waitid", "pause", "rt_sigsuspend", "sigsuspend", "rt_sigtimedwait", "rt_sigtimedwait_time64", "io_getevents",
	"io_pgetevents", "io_pgetevents_time64", "mq_timedreceive", "msgrcv", "semtimedop",
}

// futexes are waits for some of their operations only.
var futexes = []string{"futex", "futex_time64"}

// accepts mean readiness when one succeeds while booting.
var accepts = []string{"accept", "accept4"}

// recordedArg is a register argument whose values are recorded: those that decide how dangerous the call is and that are
// few. Pointers are never recorded: the caller can change what they point to.
type recordedArg struct {
	call  string
	index uint32
	mask  uint64
}

const all = ^uint64(0)

// cloneNamespaces are CLONE_NEWTIME … CLONE_NEWNET of sched.h.
const cloneNamespaces = 0x7E020080

// writeExecute are PROT_WRITE and PROT_EXEC: of the rights of new memory these two together tell code that is made from
// code that is read. Of i386's mmap, whose arguments are in memory, the value says nothing.
const writeExecute = 0x6

var recordedArgs = []recordedArg{
	{"mmap", 2, writeExecute},
	{"mmap2", 2, writeExecute},
	{"socket", 0, all},
	{"clone", 0, cloneNamespaces},
	{"unshare", 0, all},
	{"setns", 1, all},
	{"personality", 0, all},
	{"keyctl", 0, all},
	{"bpf", 0, all},
	{"prctl", 0, all},
	{"ptrace", 0, all},
}

// describeCalls fills in the programs' table of what each number is.
func describeCalls(spec *ebpf.CollectionSpec) error {
	props := make([]uint8, numProps)
	specs := make([]bpfArgSpec, 32)
	set := func(names []string, prop bpfProp) {
		for _, abi := range syscalls.ABIs {
			for _, name := range names {
				if nr, ok := syscalls.Number(abi, name); ok && nr < fastNumbers {
					props[int(abi)*fastNumbers+int(nr)] |= uint8(prop)
				}
			}
		}
	}
	set(waits, bpfPropPROP_WAIT)
	set(futexes, bpfPropPROP_FUTEX)
	set(accepts, bpfPropPROP_ACCEPT)
	for i, arg := range recordedArgs {
		specs[i+1] = bpfArgSpec{Mask: arg.mask, Index: arg.index}
		set([]string{arg.call}, bpfPropPROP_ARG*bpfProp(i+1))
	}
	if err := spec.Variables[bpfVarProps].Set(props); err != nil {
		return fmt.Errorf("describe the calls: %w", err)
	}
	if err := spec.Variables[bpfVarArgSpecs].Set(specs); err != nil {
		return fmt.Errorf("describe the arguments: %w", err)
	}
	return nil
}
