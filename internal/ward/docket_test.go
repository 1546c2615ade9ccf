// SPDX-License-Identifier: Apache-2.0

package ward

import (
	"strconv"
	"testing"
	"time"

	"github.com/whittle-sec/whittle/internal/judge"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// A container that asks for much that is refused does not hide what it is let through, nor a call that it asks for late.
func TestDocketHidesNothing(t *testing.T) {
	d := newDocket()
	note := func(nr uint32, role int, v judge.Verdict) {
		c := judge.Case{Decision: judge.Decision{Verdict: v}}
		c.Question.Call, c.Question.Role = syscalls.Call{ABI: syscalls.X86_64, Nr: nr}, "/program"+strconv.Itoa(role)+":0"
		d.note(c, time.Time{}, 0)
	}
	for role := range 5000 {
		note(1, role, judge.Refuse)
		note(2, role, judge.Once)
	}
	flood := len(d.Due())
	if flood > preciseRefused+preciseAllowed+2 {
		t.Errorf("a flood of two calls makes %d cases", flood)
	}
	note(3, 0, judge.Refuse)
	note(4, 0, judge.Once)
	note(5, 0, judge.Learn)
	if due := d.Due(); len(due) != 3 || due[2].Question.Call.Nr != 5 {
		t.Errorf("after the flood it tells %+v", due)
	}
	for nr := range uint32(10_000) {
		note(nr, 0, judge.Refuse)
		note(nr, 0, judge.Learn)
	}
	if len(d.heard) != maxRefused+maxAllowed {
		t.Errorf("%d cases are remembered", len(d.heard))
	}
}
