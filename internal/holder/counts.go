// SPDX-License-Identifier: Apache-2.0

package holder

import (
	"cmp"
	"slices"
	"time"

	"github.com/whittle-sec/whittle/internal/syscalls"
)

// A container cannot make more than this many counters: what is past it is counted without its name.
const (
	maxCounters            = 1 << 16
	maxCountersOfContainer = 512
)

type counter struct {
	container string
	call      syscalls.Call
}

type tally struct {
	count       uint64
	since, last time.Time
}

// counts of what was refused, until an agent has them.
type counts struct {
	of   map[counter]tally
	size map[string]int // counters by container
}

func newCounts() *counts { return &counts{of: map[counter]tally{}, size: map[string]int{}} }

func (c *counts) add(key counter, t tally) {
	old, ok := c.of[key]
	if !ok {
		if c.size[key.container] >= maxCountersOfContainer {
			key.call = syscalls.Call{}
		}
		if len(c.of) >= maxCounters {
			key = counter{} // nobody's: still counted
		}
		old, ok = c.of[key]
	}
	if !ok {
		c.of[key] = t
		c.size[key.container]++
		return
	}
	if t.since.Before(old.since) {
		old.since = t.since
	}
	if t.last.After(old.last) {
		old.last = t.last
	}
	old.count += t.count
	c.of[key] = old
}

// merge what was not told after all.
func (c *counts) merge(other *counts) {
	for key, t := range other.of {
		c.add(key, t)
	}
}

func (c *counts) list() []Refused {
	out := make([]Refused, 0, len(c.of))
	for key, t := range c.of {
		out = append(out, Refused{Container: key.container, Call: key.call, Count: t.count, Since: t.since, Last: t.last})
	}
	slices.SortFunc(out, func(a, b Refused) int {
		return cmp.Or(cmp.Compare(a.Container, b.Container), cmp.Compare(a.Call.ABI, b.Call.ABI), cmp.Compare(a.Call.Nr, b.Call.Nr))
	})
	return out
}
