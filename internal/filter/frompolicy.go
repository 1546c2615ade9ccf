// SPDX-License-Identifier: Apache-2.0

package filter

import (
	"fmt"
	"maps"
	"slices"

	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// FromPolicy makes the rules that decide as policy.Decide does.
func FromPolicy(p policy.Policy, sel policy.Selection) (*Rules, error) {
	r := &Rules{Tables: make(map[syscalls.ABI]*Table), Foreign: Errno(enosys)}
	for _, abi := range slices.Sorted(maps.Keys(p.ABIs)) {
		calls := p.ABIs[abi]
		if calls == nil {
			continue
		}
		if _, ok := syscalls.AuditArch(abi); !ok {
			return nil, fmt.Errorf("make rules: unknown ABI %s", abi)
		}
		r.Tables[abi] = table(p, sel, abi)
	}
	return r, nil
}

func table(p policy.Policy, sel policy.Selection, abi syscalls.ABI) *Table {
	t := &Table{Checks: make(map[uint32]Check)}
	allowed, own := policy.AllowedSet(p, sel, abi), syscalls.KernelOwn(abi)
	refusal := func(nr uint32) Action {
		return Errno(uint16(policy.RefusalErrno(p, syscalls.Call{ABI: abi, Nr: nr})))
	}
	for nr := range uint32(syscalls.MaxNr) {
		if !allowed.Has(nr) {
			t.Actions[nr] = refusal(nr)
			continue
		}
		t.Actions[nr] = Allow
		// The kernel's own calls are allowed with any arguments.
		if rules := p.ABIs[abi].Args[nr]; len(rules) > 0 && !own.Has(nr) {
			t.Checks[nr] = Check{Rules: rules, Else: refusal(nr)}
		}
	}
	t.Beyond = refusal(syscalls.MaxNr)
	return t
}

// Decide is what the rules say about a call; the compiled program says the same.
func (r *Rules) Decide(d Data) Action {
	abi, nr, ok := d.call()
	t := r.Tables[abi]
	if ok && abi == syscalls.X32 && t == nil {
		// Without x32, its numbers are only large ones of x86-64.
		abi, nr = syscalls.X86_64, d.Nr
		t = r.Tables[abi]
	}
	switch {
	case !ok || t == nil:
		return r.Foreign
	case nr >= syscalls.MaxNr:
		return t.Beyond
	}
	if c, ok := t.Checks[nr]; ok && !c.matches(d.Args) {
		return c.Else
	}
	return t.Actions[nr]
}

// call is what a program is asked about: x32 shares the architecture of x86-64 and has a flag in its numbers.
func (d *Data) call() (abi syscalls.ABI, nr uint32, ok bool) {
	for _, abi := range syscalls.ABIs {
		arch, known := syscalls.AuditArch(abi)
		if !known || arch != d.Arch || abi == syscalls.X32 {
			continue
		}
		if abi == syscalls.X86_64 && d.Nr&syscalls.X32Flag != 0 {
			return syscalls.X32, d.Nr &^ syscalls.X32Flag, true
		}
		return abi, d.Nr, true
	}
	return 0, 0, false
}

func (c Check) matches(args [argCount]uint64) bool {
	var wanted, met [256]bool
	for _, r := range c.Rules {
		wanted[r.Index] = true
		met[r.Index] = met[r.Index] || r.Matches(args)
	}
	return wanted == met
}
