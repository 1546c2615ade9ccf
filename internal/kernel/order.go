// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"cmp"
	"slices"

	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// The orders in which a trace lists things, so that equal observations make equal traces.

func compareCalls(a, b syscalls.Call) int {
	return cmp.Or(cmp.Compare(a.ABI, b.ABI), cmp.Compare(a.Nr, b.Nr))
}

func compareCells(a, b observe.Cell) int {
	return cmp.Or(cmp.Compare(a.Lane, b.Lane), cmp.Compare(a.Role.Exe, b.Role.Exe),
		cmp.Compare(a.Role.Generation, b.Role.Generation), compareBools(a.Birth, b.Birth))
}

func compareBools(a, b bool) int {
	if a == b {
		return 0
	}
	if b {
		return -1
	}
	return 1
}

func compareBursts(a, b observe.Burst) int {
	return cmp.Or(cmp.Compare(a.Cell, b.Cell), cmp.Compare(a.Stage, b.Stage), cmp.Compare(a.ABI, b.ABI),
		slices.Compare(a.Calls, b.Calls))
}

func compareArgs(a, b observe.Arg) int {
	return cmp.Or(cmp.Compare(a.Cell, b.Cell), compareCalls(a.Call, b.Call), cmp.Compare(a.Index, b.Index),
		cmp.Compare(a.Value, b.Value))
}

func compareDenied(a, b observe.Denied) int {
	return cmp.Or(cmp.Compare(a.Lane, b.Lane), compareCalls(a.Call, b.Call), cmp.Compare(a.Errno, b.Errno))
}
