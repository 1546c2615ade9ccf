// SPDX-License-Identifier: Apache-2.0

package learn

import (
	"math/bits"
	"slices"

	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// Masks of what the kernel looks at.
const (
	// Most of these arguments are an int or an unsigned int to the kernel, and callers leave anything in the upper half.
	lower32 = 0xffffffff
	// The CLONE_NEW* flags. The rest of clone's flags (exit signal, CLONE_VM …) say how, not with what privilege.
	namespaceFlags = 0x7E020080
)

// constraint is a register argument that tells an everyday use of a call from a dangerous one.
type constraint struct {
	index uint8
	mask  uint64
	// everyday values are allowed whether or not they were seen. Where all values are, there is nothing to limit.
	everyday []uint64
}

// newMemory limits the maker of memory that can be written and executed at once to who was seen to make some: compilers at
// run time. All other rights are everyday: an allocator and a loader ask for them at any time, and so does a container
// runtime before anybody can be asked.
var newMemory = constraint{index: 2, mask: protWrite | protExec, everyday: []uint64{0, protWrite, protExec}}

const (
	protWrite = 0x2
	protExec  = 0x4
)

// constrained are the calls whose argument is limited to the values that were seen, by name, as the numbers differ between
// ABIs. All but mmap are rare, so that the kernel's bitmap of calls answered without a look at arguments is not missed; a new
// mapping costs the kernel fifty times what the look does.
//
// prctl is not among them: its option says more about the version of libc and the age of a thread (PR_SET_NAME, PR_SET_VMA)
// than about the service, and late threads bring options that booting did not show. clone3 has its flags in memory, which
// no filter can read.
var constrained = map[string]constraint{
	"socket":      {index: 0, mask: lower32}, // domain: packet, netlink, vsock and the like have had many bugs
	"clone":       {index: 0, mask: namespaceFlags},
	"unshare":     {index: 0, mask: lower32},
	"setns":       {index: 1, mask: lower32},
	"personality": {index: 0, mask: lower32},
	"keyctl":      {index: 0, mask: lower32},
	"bpf":         {index: 0, mask: lower32},
	"ptrace":      {index: 0, mask: lower32},
	"mmap":        newMemory,
	"mmap2":       newMemory,
}

// maxValues is how many values of an argument make a rule; more say that the argument is not what tells uses apart.
const maxValues = 8

// proposeArgs limits the constrained calls to the values that any lane used, since a rule holds for a call in every lane. No
// rule is made where a value may have been missed: a rule makes a policy stricter.
func proposeArgs(p *policy.Policy, t observe.Trace) {
	if t.Account.LostArgs() {
		return
	}
	values, incomplete := argValues(t)
	for call, vs := range values {
		if incomplete[call] || len(vs) > maxValues {
			continue
		}
		c, _ := constraintOf(call)
		vs = append(vs, c.everyday...)
		slices.Sort(vs)
		vs = slices.Compact(vs)
		if len(vs) == 1<<bits.OnesCount64(c.mask) {
			continue
		}
		rules := make([]policy.ArgRule, len(vs))
		for i, v := range vs {
			rules[i] = policy.ArgRule{Index: c.index, Mask: c.mask, Value: v}
		}
		p.ABIs[call.ABI].Args[call.Nr] = rules
	}
}

// constraintOf a call. i386's mmap has its arguments in memory.
func constraintOf(call syscalls.Call) (c constraint, ok bool) {
	name := call.String()
	if call.ABI == syscalls.I386 && name == "mmap" {
		return c, false
	}
	c, ok = constrained[name]
	return c, ok
}

// argValues are the sorted distinct values by call, and the calls that some cell made without a value having been recorded
// for it.
func argValues(t observe.Trace) (values map[syscalls.Call][]uint64, incomplete map[syscalls.Call]bool) {
	type made struct {
		cell int
		call syscalls.Call
	}
	values, incomplete = map[syscalls.Call][]uint64{}, map[syscalls.Call]bool{}
	recorded := map[made]bool{}
	for _, arg := range t.Args {
		c, ok := constraintOf(arg.Call)
		if !ok || arg.Index != c.index {
			continue
		}
		recorded[made{arg.Cell, arg.Call}] = true
		v := arg.Value & c.mask
		if at, found := slices.BinarySearch(values[arg.Call], v); !found {
			values[arg.Call] = slices.Insert(values[arg.Call], at, v)
		}
	}
	seen := map[syscalls.Call]bool{}
	for i, cell := range t.Cells {
		for _, s := range cell.Calls {
			if _, ok := constraintOf(s.Call); !ok {
				continue
			}
			seen[s.Call] = true
			if !recorded[made{i, s.Call}] {
				incomplete[s.Call] = true
			}
		}
	}
	for call := range values {
		if !seen[call] {
			incomplete[call] = true // a value of a call that nobody made: it is not in the policy
		}
	}
	return values, incomplete
}
