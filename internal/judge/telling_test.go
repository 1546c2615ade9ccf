// SPDX-License-Identifier: Apache-2.0

package judge

import (
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/whittle-sec/whittle/internal/syscalls"
)

// What the panel looks at of a call's arguments is what tells questions apart, and no more is.
func TestTelling(t *testing.T) {
	for name := range uses {
		if looksAt[name] == nil {
			t.Errorf("nothing says which registers the use of %s is told by", name)
		}
	}
	interesting := []uint64{0, 1, 2, 3, 4, 7, 10, 16, 0x20, 0x541C, 0xffffffff, 1 << 16, 0o6000, 0o20000, 28, 263}
	rapid.Check(t, func(t *rapid.T) {
		abi := rapid.SampledFrom(syscalls.ABIs[:]).Draw(t, "abi")
		name := rapid.SampledFrom(slices.Sorted(maps.Keys(uses))).Draw(t, "call")
		nr, ok := syscalls.Number(abi, name)
		if !ok {
			return
		}
		q := Question{Call: syscalls.Call{ABI: abi, Nr: nr}}
		for i := range q.Args {
			q.Args[i] = rapid.SampledFrom(interesting).Draw(t, "arg")
		}
		told := q
		told.Args = q.Telling()
		for i, arg := range told.Args {
			if arg == 0 { // it tells nothing, or was 0
				told.Args[i] = rapid.SampledFrom(interesting).Draw(t, "other")
			}
		}
		if told.Telling() != q.Telling() {
			return // a register that tells was 0
		}
		use, ok := uses[name](abi, q.Args)
		if other, otherOK := uses[name](abi, told.Args); other != use || ok != otherOK {
			t.Fatalf("%v %s: %v is %+v, and %v is %+v", abi, name, q.Args, use, told.Args, other)
		}
	})
}
