// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"math/bits"
	"slices"
	"time"

	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/internal/syscalls"
	"github.com/whittle-sec/whittle/internal/workload"
)

// container is what was read so far about one observed container. Memory is what it costs to watch many, so the records
// are flat and counts of an epoch are eight bytes.
type container struct {
	id     ID
	index  uint32
	target Target
	watch  bool
	follow bool          // nothing is recorded: only who its tasks are, and signals
	also   bool          // what its filters deny is reported, too
	added  time.Duration // boot time

	epochs   []epoch
	stagedAt time.Duration // when the last mark of a stage was
	swept    uint32        // marks of epochs before this one are no longer in the map
	cells    map[uint32]bpfCellKey
	calls    map[bpfCallKey]*record
	bursts   map[bpfBurstKey]*record
	args     map[bpfArgKey]uint32 // first epoch
	roles    map[[2]uint64]string // by inode and device
	denied   map[bpfDeniedKey]bpfDenied
	checked  []bpfCheckKey
	untold   uint64 // denials that the reader of the channel was too slow for
	peeked   uint32 // its epoch at the last peek
	skipped  uint64 // calls for which a program did not run, on the whole host, when this one was added
	problems []string
}

// empty it of what was recorded.
func (c *container) empty() {
	c.cells, c.calls, c.bursts = map[uint32]bpfCellKey{}, map[bpfCallKey]*record{}, map[bpfBurstKey]*record{}
	c.args, c.denied = map[bpfArgKey]uint32{}, map[bpfDeniedKey]bpfDenied{}
}

type epoch struct {
	at     time.Duration // boot time; 0 while it is not known
	cause  observe.Cause
	signal uint8
	stage  observe.Stage
}

// history is how many epochs the kernel remembers of each call.
const history = 32

type epochCount struct{ epoch, count uint32 }

// record is a count by epoch: of a call in a cell, or of a distinct burst.
type record struct {
	total  uint64
	when   uint64
	epochs []epochCount
	set    *[8]uint64 // of a burst; nil of a call, which there are more of
	origin uint8      // of a call
}

// add n to the count of an epoch.
func (r *record) add(epoch uint32, n uint64) {
	i := len(r.epochs)
	for i > 0 && r.epochs[i-1].epoch > epoch {
		i--
	}
	if i > 0 && r.epochs[i-1].epoch == epoch {
		r.epochs[i-1].count = uint32(min(uint64(r.epochs[i-1].count)+n, 1<<32-1))
		return
	}
	r.epochs = slices.Insert(r.epochs, i, epochCount{epoch, uint32(min(n, 1<<32-1))})
}

func (r *record) has(epoch uint32) bool {
	_, ok := slices.BinarySearchFunc(r.epochs, epoch, func(e epochCount, n uint32) int { return int(e.epoch) - int(n) })
	return ok
}

// take what the kernel has of a call now. The kernel tells the exact epochs of the last 32; counts since the last peek
// belong to the newest of them, but for one in each other.
func (r *record) take(seen bpfCallSeen) {
	r.origin = uint8(seen.Origin)
	if seen.Count == r.total && seen.When == r.when {
		return
	}
	// A program adds the record and its count in two steps: it was seen, whatever the count says.
	n := max(seen.Count, 1) - r.total
	last := uint32(seen.When >> 32)
	if len(r.epochs) == 0 {
		r.add(seen.First, 1)
		n--
	}
	for mask := uint32(seen.When); mask != 0; mask &= mask - 1 {
		e := last - uint32(bits.TrailingZeros32(mask))
		if !r.has(e) {
			r.add(e, 1)
			n -= min(n, 1)
		}
	}
	if n > 0 {
		r.add(last, n)
	}
	r.total, r.when = max(seen.Count, 1), seen.When
}

func (r *record) counts() []observe.EpochCount {
	out := make([]observe.EpochCount, len(r.epochs))
	for i, e := range r.epochs {
		out[i] = observe.EpochCount{uint64(e.epoch), uint64(e.count)}
	}
	return out
}

// trace is a copy of everything read so far.
func (c *container) trace(now time.Duration, arch syscalls.ABI) observe.Trace {
	t := observe.Trace{Arch: arch, Length: now - c.added, Epochs: c.traceEpochs()}
	index := c.traceCells(&t)
	for key, r := range c.bursts {
		i, ok := index[key.Cell]
		if !ok {
			continue
		}
		b := observe.Burst{Cell: i, ABI: syscalls.ABI(key.Abi), Stage: observe.Stage(key.Stage), Epochs: r.counts()}
		for w, word := range r.set {
			for ; word != 0; word &= word - 1 {
				b.Calls = append(b.Calls, uint32(w*64+bits.TrailingZeros64(word)))
			}
		}
		t.Bursts = append(t.Bursts, b)
	}
	slices.SortFunc(t.Bursts, compareBursts)
	for key, first := range c.args {
		if i, ok := index[key.Cell]; ok {
			call := syscalls.Call{ABI: syscalls.ABI(key.Abi), Nr: uint32(key.Nr)}
			t.Args = append(t.Args, observe.Arg{Cell: i, Call: call, Index: key.Index, Value: key.Value, First: first})
		}
	}
	slices.SortFunc(t.Args, compareArgs)
	for key, d := range c.denied {
		t.Denied = append(t.Denied, observe.Denied{
			Lane:  observe.Lane(key.Lane),
			Call:  syscalls.Call{ABI: syscalls.ABI(key.Abi), Nr: uint32(key.Nr)},
			Errno: key.Error, Count: d.Count, First: d.First, Last: d.Last,
		})
	}
	slices.SortFunc(t.Denied, compareDenied)
	return t
}

func (c *container) traceEpochs() []observe.Epoch {
	out := make([]observe.Epoch, len(c.epochs))
	for i, e := range c.epochs {
		at := e.at
		if at == 0 && i > 0 { // its mark was lost, which the account says
			at = c.added + out[i-1].Start
		}
		out[i] = observe.Epoch{Start: max(at-c.added, 0), Cause: e.cause, Signal: e.signal, Stage: e.stage}
	}
	return out
}

// traceCells adds the cells and their calls, those of one role that several files or containers' ids had as one cell.
func (c *container) traceCells(t *observe.Trace) map[uint32]int {
	type who struct {
		lane  observe.Lane
		role  observe.Role
		birth bool
	}
	byWho := map[who][]uint32{}
	for id, key := range c.cells {
		w := who{observe.Lane(key.Lane), observe.Role{Exe: c.exe(key), Generation: key.Generation}, key.Birth != 0}
		byWho[w] = append(byWho[w], id)
	}
	index := map[uint32]int{}
	seen := map[who]map[syscalls.Call]*record{}
	for w := range byWho {
		seen[w] = map[syscalls.Call]*record{}
	}
	for key, r := range c.calls {
		k, ok := c.cells[key.Cell]
		if !ok {
			continue
		}
		w := who{observe.Lane(k.Lane), observe.Role{Exe: c.exe(k), Generation: k.Generation}, k.Birth != 0}
		call := syscalls.Call{ABI: syscalls.ABI(key.Abi), Nr: uint32(key.Nr)}
		if have := seen[w][call]; have != nil {
			both := &record{epochs: slices.Clone(have.epochs), origin: max(have.origin, r.origin)}
			for _, e := range r.epochs {
				both.add(e.epoch, uint64(e.count))
			}
			r = both
		}
		seen[w][call] = r
	}
	for w := range byWho {
		cell := observe.Cell{Lane: w.lane, Role: w.role, Birth: w.birth}
		for call, r := range seen[w] {
			cell.Calls = append(cell.Calls, observe.Seen{Call: call, Epochs: r.counts(), Origin: observe.Origin(r.origin)})
		}
		slices.SortFunc(cell.Calls, func(a, b observe.Seen) int { return compareCalls(a.Call, b.Call) })
		t.Cells = append(t.Cells, cell)
	}
	slices.SortFunc(t.Cells, compareCells)
	for i, cell := range t.Cells {
		for _, id := range byWho[who{cell.Lane, cell.Role, cell.Birth}] {
			index[id] = i
		}
	}
	return index
}

// exe is the path of a cell's executable as it was executed; "?" for one that was running before we looked.
func (c *container) exe(key bpfCellKey) string {
	if path := c.roles[[2]uint64{key.Ino, uint64(key.Dev)}]; path != "" {
		return workload.Printable(path, 120)
	}
	return "?"
}
