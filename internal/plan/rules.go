// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"slices"

	"github.com/whittle-sec/whittle/internal/filter"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// Booting is the filter while the container boots: Bulk calls are Open.
func (p *Plan) Booting() *filter.Rules { return p.rules(true) }

// Running is the filter from the end of the boot on; the same as Booting when nothing is Bulk.
func (p *Plan) Running() *filter.Rules { return p.rules(false) }

func (p *Plan) rules(booting bool) *filter.Rules {
	enosys := filter.Errno(uint16(policy.ENOSYS))
	// A foreign ABI was never seen: whoever uses it now is no program of the image.
	r := &filter.Rules{Tables: make(map[syscalls.ABI]*filter.Table), Foreign: enosys}
	for abi, t := range p.tables {
		table := &filter.Table{Checks: make(map[uint32]filter.Check), Beyond: enosys}
		for nr := range uint32(syscalls.MaxNr) {
			e := t.entries[nr]
			switch {
			case e.Place == Open || booting && e.Bulk:
				table.Actions[nr] = filter.Allow
				// Other arguments are asked about, so that the judges hear of them.
				if rules := t.calls.Args[nr]; len(rules) > 0 && !t.class.own.Has(nr) {
					table.Checks[nr] = filter.Check{Rules: slices.Clone(rules), Else: filter.Notify}
				}
			case e.Place == Held:
				table.Actions[nr] = filter.Notify
			default:
				table.Actions[nr] = filter.Errno(uint16(p.shutErrno(e.Call)))
			}
		}
		r.Tables[abi] = table
	}
	return r
}

// shutErrno is what a kernel without the call would say, unless the call is one that every kernel has.
func (p *Plan) shutErrno(call syscalls.Call) int32 {
	class := p.tables[call.ABI].class
	if !class.known.Has(call.Nr) || class.multi.Has(call.Nr) {
		return policy.ENOSYS
	}
	return policy.RefusalErrno(p.policy, call)
}
