// SPDX-License-Identifier: Apache-2.0

package learn

import (
	"cmp"
	"iter"
	"slices"

	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// made is a call of a lane with everything that says when it was made, one entry for each cell.
type made struct {
	lane  observe.Lane
	call  syscalls.Call
	first uint32 // epoch, over all cells
	seen  [][]observe.EpochCount
}

// series is a trace turned round: by call instead of by cell, and the service lane's epochs with what was new in them.
type series struct {
	made []made // by lane, ABI and number
	// fresh counts, for each epoch, the calls that the service lane had never made before. start, with one entry more
	// than there are epochs, is in seconds since the first.
	fresh []int
	start []float64
	// active says in which epochs the service lane called anything, waited in which it waited for something.
	active, waited []bool
}

// receiving calls mostly block, but do not end a burst, since the kernel's observer cannot know whether they do. A UDP
// service or a worker with a plain socket to its queue waits in them and in nothing else.
var receiving = []string{"recvfrom", "recvmsg", "recvmmsg", "recvmmsg_time64", "socketcall", "io_uring_enter"}

func newSeries(t observe.Trace) *series {
	s := &series{
		made:   turn(t),
		fresh:  make([]int, len(t.Epochs)),
		start:  make([]float64, len(t.Epochs)+1),
		active: make([]bool, len(t.Epochs)),
		waited: make([]bool, len(t.Epochs)),
	}
	for call, m := range s.calls(observe.LaneService) {
		s.fresh[m.first]++
		receives := slices.Contains(receiving, call.String())
		for _, seen := range m.seen {
			for _, e := range seen {
				s.active[e.Epoch()] = true
				s.waited[e.Epoch()] = s.waited[e.Epoch()] || receives
			}
		}
	}
	for i := range t.Epochs {
		s.start[i] = (t.Epochs[i].Start - t.Epochs[0].Start).Seconds()
		s.start[i+1] = (t.EpochEnd(i) - t.Epochs[0].Start).Seconds()
	}
	for _, b := range t.Bursts {
		if t.Cells[b.Cell].Lane != observe.LaneService {
			continue
		}
		for _, e := range b.Epochs {
			s.waited[e.Epoch()] = true
		}
	}
	return s
}

func turn(t observe.Trace) []made {
	type key struct {
		lane observe.Lane
		call syscalls.Call
	}
	index := map[key]int{}
	var all []made
	for _, cell := range t.Cells {
		for _, seen := range cell.Calls {
			k := key{cell.Lane, seen.Call}
			i, ok := index[k]
			if !ok {
				i = len(all)
				index[k] = i
				all = append(all, made{lane: cell.Lane, call: seen.Call, first: seen.Epochs[0].Epoch()})
			}
			all[i].first = min(all[i].first, seen.Epochs[0].Epoch())
			all[i].seen = append(all[i].seen, seen.Epochs)
		}
	}
	slices.SortFunc(all, func(a, b made) int {
		return cmp.Or(cmp.Compare(a.lane, b.lane), cmp.Compare(a.call.ABI, b.call.ABI), cmp.Compare(a.call.Nr, b.call.Nr))
	})
	return all
}

// calls of a lane, each once.
func (s *series) calls(lane observe.Lane) iter.Seq2[syscalls.Call, made] {
	return func(yield func(syscalls.Call, made) bool) {
		for _, m := range s.made {
			if m.lane == lane && !yield(m.call, m) {
				return
			}
		}
	}
}

// freshIn counts the new calls of the epochs [from, to).
func (s *series) freshIn(from, to int) (n int) {
	for e := from; e < to; e++ {
		n += s.fresh[e]
	}
	return n
}

// after is the first epoch boundary at least this many seconds after the beginning of the epoch, if there is one yet.
func (s *series) after(epoch int, seconds float64, end int) (boundary int, ok bool) {
	for m := epoch; m <= end; m++ {
		if s.start[m]-s.start[epoch] >= seconds {
			return m, true
		}
	}
	return end, false
}

// lastMade is the last epoch in [from, to) in which the service lane made a call of one of these names, or -1.
func lastMade(t observe.Trace, from, to int, gen0 bool, names ...string) int {
	last := -1
	for _, cell := range t.Cells {
		if cell.Lane != observe.LaneService || gen0 && cell.Role.Generation != 0 {
			continue
		}
		for _, seen := range cell.Calls {
			if !slices.Contains(names, seen.Call.String()) {
				continue
			}
			for _, e := range seen.Epochs {
				if at := int(e.Epoch()); at >= from && at < to {
					last = max(last, at)
				}
			}
		}
	}
	return last
}
