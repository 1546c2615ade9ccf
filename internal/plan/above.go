// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"slices"

	"github.com/whittle-sec/whittle/internal/filter"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// Above is newer as it may be injected into processes that already run under older: it holds whatever older holds.
//
// A filter cannot be taken off, and of an allow and a hold the hold wins, whichever filter says it. If older holds a call
// that newer lets through, the call goes to older's listener, which is closed by then, and fails with ENOSYS. Where both
// hold it, the newest filter's listener is asked. So a call that has become open since is open from the next start on.
func Above(older, newer *filter.Rules) *filter.Rules {
	r := &filter.Rules{Tables: make(map[syscalls.ABI]*filter.Table, len(newer.Tables)), Foreign: newer.Foreign}
	for abi, table := range newer.Tables {
		t := &filter.Table{Actions: table.Actions, Checks: make(map[uint32]filter.Check), Beyond: table.Beyond}
		for nr := range t.Actions {
			nr := uint32(nr)
			check, checked := table.Checks[nr]
			switch {
			case t.Actions[nr] != filter.Allow:
			case holds(older.Tables[abi], nr, check):
				t.Actions[nr] = filter.Notify
				checked = false
			}
			if checked {
				t.Checks[nr] = check
			}
		}
		r.Tables[abi] = t
	}
	return r
}

// holds reports whether a table asks about the number with some arguments for which a check would not.
func holds(t *filter.Table, nr uint32, check filter.Check) bool {
	if t == nil {
		return false // refused, which nothing above it changes
	}
	old, checked := t.Checks[nr]
	return t.Actions[nr] == filter.Notify || checked && old.Else == filter.Notify && !slices.Equal(old.Rules, check.Rules)
}
