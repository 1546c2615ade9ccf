// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"maps"
	"slices"

	"github.com/whittle-sec/whittle/internal/kernel"
	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/internal/syscalls"
	"github.com/whittle-sec/whittle/internal/workload"
	"golang.org/x/sys/unix"
)

type denialKey struct {
	call  syscalls.Call
	errno int32
	comm  string
}

// denials of one run, counted.
type denials struct {
	count map[denialKey]uint64
}

// read until the function that it returns is called; that takes what is still in the channel.
func (d *denials) read(ch <-chan kernel.Denial) (stop func()) {
	end, done := make(chan struct{}), make(chan struct{})
	take := func(n kernel.Denial) {
		k := denialKey{n.Call, n.Errno, workload.Printable(n.Comm, 16)}
		d.count[k] = max(d.count[k], n.Count)
	}
	go func() {
		defer close(done)
		for {
			select {
			case n, ok := <-ch:
				if !ok {
					return
				}
				take(n)
			case <-end:
				for len(ch) > 0 {
					take(<-ch)
				}
				return
			}
		}
	}()
	return func() { close(end); <-done }
}

// exact counts are the kernel's: it tells at powers of two only. Where two programs share a count, what was told stays.
func (d *denials) exact(denied []observe.Denied) {
	total := map[denialKey]uint64{}
	for _, n := range denied {
		total[denialKey{n.Call, n.Errno, ""}] += n.Count
	}
	callers := map[denialKey][]denialKey{}
	for k := range d.count {
		nobody := denialKey{k.call, k.errno, ""}
		callers[nobody] = append(callers[nobody], k)
	}
	for k, n := range total {
		switch by := callers[k]; len(by) {
		case 0:
			d.count[denialKey{k.call, k.errno, "?"}] = n
		case 1:
			d.count[by[0]] = n
		}
	}
}

// report on stderr; nothing when nothing was refused.
func (d *denials) report(a *app) {
	keys := slices.SortedFunc(maps.Keys(d.count), func(x, y denialKey) int {
		return cmp.Or(cmp.Compare(d.count[y], d.count[x]), cmp.Compare(x.call.String(), y.call.String()))
	})
	for _, k := range keys {
		a.say("refused: %s by %s, %s, %d×", k.call, k.comm, unix.ErrnoName(unix.Errno(k.errno)), d.count[k])
	}
}
