// SPDX-License-Identifier: Apache-2.0

package corpus

import (
	"sync"

	"github.com/whittle-sec/whittle/internal/syscalls"
)

// classes of calls, over all architectures: calls of which each does what the others do (open, openat, openat2) are one
// item, so that what an x86-64 program recorded holds for an arm64 program, which has no open.
type classes struct {
	of    map[string]string // a call's name → the name of its class
	table map[syscalls.ABI][]string
}

// allClasses are made once: the tables do not change.
var allClasses = sync.OnceValue(func() classes {
	c := classes{of: map[string]string{}, table: map[syscalls.ABI][]string{}}
	var find func(name string) string
	find = func(name string) string {
		if up, ok := c.of[name]; ok && up != name {
			return find(up)
		}
		return name
	}
	for _, abi := range syscalls.ABIs {
		for nr := range syscalls.Known(abi).All() {
			name := syscalls.Name(abi, nr)
			if _, ok := c.of[name]; !ok {
				c.of[name] = name
			}
			for other := range syscalls.Equivalents(syscalls.Call{ABI: abi, Nr: nr}).All() {
				// The relation has a direction: one class is only what does as much both ways.
				if !syscalls.Equivalents(syscalls.Call{ABI: abi, Nr: other}).Has(nr) {
					continue
				}
				a, b := find(name), find(syscalls.Name(abi, other))
				c.of[max(a, b)] = min(a, b)
			}
		}
	}
	for name := range c.of {
		c.of[name] = find(name)
	}
	for _, abi := range syscalls.ABIs {
		c.table[abi] = make([]string, syscalls.Last(abi)+1)
		for nr := range syscalls.Known(abi).All() {
			c.table[abi][nr] = c.of[syscalls.Name(abi, nr)]
		}
	}
	return c
})

// class of a call's name: its own, where no architecture of ours has the call.
func (c classes) class(name string) string {
	if class, ok := c.of[name]; ok {
		return class
	}
	return name
}

// items numbers the classes that occur in a corpus.
type items struct {
	index map[string]int
	names []string
	// nr has, for each ABI, the item of each call's number, or -1.
	nr map[syscalls.ABI][]int16
}

func itemsOf(services []Service, limit int) items {
	all := allClasses()
	it := items{index: map[string]int{}, nr: map[syscalls.ABI][]int16{}}
	add := func(calls []string) {
		for _, name := range calls {
			class := all.class(name)
			if _, ok := it.index[class]; !ok && len(it.names) < limit {
				it.index[class] = len(it.names)
				it.names = append(it.names, class)
			}
		}
	}
	for _, s := range services {
		for _, r := range s.Roles {
			add(r.Calls)
		}
		for _, b := range s.Bursts {
			add(b.Calls)
		}
	}
	for abi, table := range all.table {
		of := make([]int16, len(table))
		for nr, class := range table {
			of[nr] = -1
			if i, ok := it.index[class]; ok {
				of[nr] = int16(i)
			}
		}
		it.nr[abi] = of
	}
	return it
}

// of is the item of a call, or -1.
func (it items) of(c syscalls.Call) int {
	if table := it.nr[c.ABI]; int(c.Nr) < len(table) {
		return int(table[c.Nr])
	}
	return -1
}
