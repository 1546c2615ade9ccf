// SPDX-License-Identifier: Apache-2.0

package elfcalls

import (
	"bytes"
	"strings"
	"sync"

	"github.com/whittle-sec/whittle/internal/syscalls"
)

// wrapper is a function of the C library and the calls that it makes.
type wrapper struct {
	name  string
	calls []uint32
}

// wrappers of one ABI by the function's name.
type wrappers map[string]wrapper

// tables are made when an ABI is first met.
var tables = func() (out [len(syscalls.ABIs) + 1]func() wrappers) {
	for _, abi := range syscalls.ABIs {
		out[abi] = sync.OnceValue(func() wrappers { return makeWrappers(abi) })
	}
	return out
}()

func wrappersOf(abi syscalls.ABI) wrappers { return tables[abi]() }

// makeWrappers: what beyond says of a function, and for each call of the ABI the function of its name, if beyond is silent.
func makeWrappers(abi syscalls.ABI) wrappers {
	sets := make(map[string]*syscalls.Set)
	add := func(function, call string) {
		nr, ok := syscalls.Number(abi, call)
		if !ok {
			return // an ABI without it: arm64 has no open
		}
		if sets[function] == nil {
			sets[function] = new(syscalls.Set)
		}
		sets[function].Add(nr)
	}
	said := make(map[string]bool)
	for _, row := range beyond {
		for function := range strings.FieldsSeq(row.functions) {
			said[function] = true
			for call := range strings.FieldsSeq(row.calls) {
				add(function, call)
			}
		}
	}
	for nr := range syscalls.Known(abi).All() {
		if name := syscalls.Name(abi, nr); !said[name] {
			add(name, name)
		}
	}
	out := make(wrappers, len(sets))
	for name, set := range sets {
		multiplexed(abi, set)
		w := wrapper{name: name}
		for nr := range set.All() {
			w.calls = append(w.calls, nr)
		}
		out[name] = w
	}
	return out
}

// multiplexed adds the call through which i386 makes others: older C libraries know no other way.
func multiplexed(abi syscalls.ABI, set *syscalls.Set) {
	if abi != syscalls.I386 {
		return
	}
	for _, name := range []string{"socketcall", "ipc"} {
		through, ok := syscalls.Number(abi, name)
		if !ok {
			continue
		}
		for nr := range set.All() {
			if syscalls.Equivalents(syscalls.Call{ABI: abi, Nr: nr}).Has(through) {
				set.Add(through)
				break
			}
		}
	}
}

// find the function that an imported name means. The C libraries have the same function under further names: __read_chk
// (fortified), open64 and mmap64 (large files), __open64_2, __fork, __libc_pread, clock_gettime64 and __nanosleep_time64 (i386).
func (w wrappers) find(name []byte) (wrapper, bool) {
	if found, ok := w[string(name)]; ok {
		return found, true
	}
	name = bytes.TrimPrefix(bytes.TrimLeft(name, "_"), []byte("libc_"))
	for _, suffix := range []string{"_chk", "_2", "_nocancel", "_time64", "64", "_cancel"} {
		if found, ok := w[string(name)]; ok {
			return found, true
		}
		name = bytes.TrimSuffix(name, []byte(suffix))
	}
	found, ok := w[string(name)]
	return found, ok
}
