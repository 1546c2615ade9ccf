// SPDX-License-Identifier: Apache-2.0

// Package filter turns a policy into what a kernel or an engine enforces (a seccomp program, an OCI profile, a systemd
// drop-in), and such profiles back into policies. It judges nothing and installs nothing: package policy decides, package
// seccomp installs.
package filter

import (
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// Action is the value that a seccomp program returns. The zero Action kills the thread.
type Action uint32

const (
	Allow  Action = 0x7fff0000
	Notify Action = 0x7fc00000

	actionErrno Action = 0x00050000
)

const (
	maxErrno = 4095 // the kernel caps larger ones
	eperm    = 1
	enosys   = 38
)

// Errno is the Action that fails a call with n.
func Errno(n uint16) Action { return actionErrno | Action(min(n, maxErrno)) }

func (a Action) String() string {
	switch {
	case a == Allow:
		return "allow"
	case a == Notify:
		return "notify"
	case a&^0xffff == actionErrno:
		return fmt.Sprintf("errno %d", a&0xffff)
	}
	return fmt.Sprintf("action %#x", uint32(a))
}

// Rules say what every call gets, per ABI. The zero Rules kill.
type Rules struct {
	Tables map[syscalls.ABI]*Table
	// Foreign is for architectures without a table.
	Foreign Action
}

// Table is one ABI's part of Rules.
type Table struct {
	Actions [syscalls.MaxNr]Action
	// Checks constrain a number's action to some argument values.
	Checks map[uint32]Check
	// Beyond is for numbers from syscalls.MaxNr on. For x86-64 that includes x32 numbers where x32 has no table.
	Beyond Action
}

// Check gives Else where the arguments do not satisfy the rules, see policy.ArgRule.
type Check struct {
	Rules []policy.ArgRule
	Else  Action
}

// span of numbers, the last included, that share a decision.
type span struct {
	first, last uint32
	leaf        leaf
}

// leaf of the number tree. check is an index into a list of checks, or -1.
type leaf struct {
	action Action
	check  int
}

// spans cuts the whole number space of one architecture into as few spans as possible.
func (r *Rules) spans(arch []syscalls.ABI) (spans []span, checks []Check) {
	add := func(first, last uint32, l leaf) {
		if n := len(spans); n > 0 && spans[n-1].leaf == l && l.check < 0 {
			spans[n-1].last = last
			return
		}
		spans = append(spans, span{first, last, l})
	}
	table := func(t *Table, base uint32) {
		for nr, action := range t.Actions {
			l := leaf{action, -1}
			if c, ok := t.Checks[uint32(nr)]; ok {
				l.check = len(checks)
				checks = append(checks, c)
			}
			add(base+uint32(nr), base+uint32(nr), l)
		}
	}
	native := r.Tables[arch[0]]
	if native == nil {
		native = uniform(r.Foreign)
	}
	table(native, 0)
	next := uint32(syscalls.MaxNr)
	if len(arch) > 1 && r.Tables[arch[1]] != nil {
		x32 := r.Tables[arch[1]]
		add(next, syscalls.X32Flag-1, leaf{native.Beyond, -1})
		table(x32, syscalls.X32Flag)
		// Past the table the flag's owner goes on to answer: up to the end of the number space.
		next = syscalls.X32Flag + syscalls.MaxNr
		native = x32
	}
	add(next, math.MaxUint32, leaf{native.Beyond, -1})
	return spans, checks
}

func uniform(a Action) *Table {
	t := &Table{Beyond: a}
	for i := range t.Actions {
		t.Actions[i] = a
	}
	return t
}

// archs groups the ABIs with a table by the AUDIT_ARCH value they share, in ascending order of ABI. x32 shares that of
// x86-64 and comes second, also where x86-64 itself has no table.
func (r *Rules) archs() [][]syscalls.ABI {
	var groups [][]syscalls.ABI
	for _, abi := range slices.Sorted(maps.Keys(r.Tables)) {
		switch abi {
		case syscalls.X32:
			if r.Tables[syscalls.X86_64] == nil {
				groups = append(groups, []syscalls.ABI{syscalls.X86_64, syscalls.X32})
			}
		case syscalls.X86_64:
			groups = append(groups, []syscalls.ABI{syscalls.X86_64, syscalls.X32})
		default:
			groups = append(groups, []syscalls.ABI{abi})
		}
	}
	return groups
}
