// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"bytes"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/observe"
)

// batch is how many entries one look-up takes; it is more than the longest bucket of any map has.
const batch = 2048

// each reads a whole hash map without changing it. Entries that are added meanwhile may be missing until the next time.
func each[K, V any](m *ebpf.Map, visit func(K, *V)) error {
	keys, values := make([]K, batch), make([]V, batch)
	var cursor ebpf.MapBatchCursor
	for {
		n, err := m.BatchLookup(&cursor, keys, values, nil)
		for i := range n {
			visit(keys[i], &values[i])
		}
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read map %s: %w", m, err)
		}
	}
}

// peekSince peeks unless somebody else has since then. A look at the maps costs milliseconds however little is in them, so
// containers that end together share one.
func (o *Observer) peekSince(t time.Time) error {
	if o.peeked.After(t) {
		return nil
	}
	return o.peek()
}

// peek reads all maps into the containers' records. It deletes nothing, so a crash loses nothing that a later peek would
// not find. The caller holds mu.
func (o *Observer) peek() error {
	began := time.Now()
	byUID := make(map[uint32]*container, len(o.containers))
	for _, c := range o.containers {
		byUID[uint32(c.id)] = c
		now := atomic.LoadUint32(&o.shared.containers[c.index].Epoch)
		if now-c.peeked > history && len(c.problems) == 0 {
			c.problems = append(c.problems, "marks came faster than they were read: of some calls it is not known in which phase they were made")
		}
		c.peeked = now
	}
	// What a record refers to is read after it: a cell is made before its first call is counted, and an epoch begins
	// before anything is seen in it.
	err := errors.Join(
		o.peekCalls(byUID),
		each(o.objects.Bursts, func(k bpfBurstKey, b *bpfBurst) {
			if c := byUID[b.Uid]; c != nil {
				c.burst(k, b)
			}
		}),
		each(o.objects.Args, func(k bpfArgKey, a *bpfArgSeen) {
			if c := byUID[a.Uid]; c != nil {
				c.args[k] = a.First
			}
		}),
		each(o.objects.Denials, func(k bpfDeniedKey, d *bpfDenied) {
			if c := byUID[k.Uid]; c != nil {
				c.denied[k] = *d
			}
		}),
		each(o.objects.Cells, func(k bpfCellKey, id *uint32) {
			if c := byUID[k.Uid]; c != nil {
				c.cells[*id] = k
			}
		}),
		each(o.objects.Roles, func(k bpfRoleKey, r *bpfRole) {
			if c := byUID[k.Uid]; c != nil {
				c.roles[[2]uint64{k.Ino, uint64(k.Dev)}] = cString(r.Path[:])
			}
		}),
		each(o.objects.Marks, func(k bpfMarkKey, m *bpfMark) {
			if c := byUID[k.Uid]; c != nil {
				c.mark(k.Epoch, m)
			}
		}),
	)
	for _, c := range o.containers {
		// The mark of an epoch that has just begun may not be in the map yet: the next peek fills it in.
		c.grow(atomic.LoadUint32(&o.shared.containers[c.index].Epoch))
	}
	if err == nil {
		o.peeked = began
	}
	return err
}

func (o *Observer) peekCalls(byUID map[uint32]*container) error {
	return each(o.objects.Calls, func(k bpfCallKey, s *bpfCallSeen) {
		c := byUID[s.Uid]
		if c == nil {
			return
		}
		r := c.calls[k]
		if r == nil {
			r = &record{}
			c.calls[k] = r
		}
		r.take(*s)
	})
}

func (c *container) burst(k bpfBurstKey, b *bpfBurst) {
	r := c.bursts[k]
	if r == nil {
		set := b.Calls
		r = &record{set: &set}
		c.bursts[k] = r
	}
	if n := max(b.Count, 1); n > r.total {
		r.add(b.Last, n-r.total)
		r.total = n
	}
}

func (c *container) mark(number uint32, m *bpfMark) {
	c.grow(number)
	e := &c.epochs[number]
	if e.at == 0 {
		*e = epoch{time.Duration(m.Ns), observe.Cause(m.Cause), m.Signal, observe.Stage(m.Stage)}
		c.stagedAt = max(c.stagedAt, e.at)
	}
}

// grow makes room for an epoch by its number.
func (c *container) grow(number uint32) {
	for uint32(len(c.epochs)) <= number {
		last := epoch{}
		if n := len(c.epochs); n > 0 {
			last.stage = c.epochs[n-1].stage
		}
		c.epochs = append(c.epochs, last)
	}
}

// tick begins a new epoch of a container, in the stage it is in or in another.
func (o *Observer) tick(c *container, stage observe.Stage) {
	shared := &o.shared.containers[c.index]
	was := atomic.LoadUint32(&shared.Stage)
	if stage != observe.Stage(was) && !atomic.CompareAndSwapUint32(&shared.Stage, was, uint32(stage)) {
		return // the kernel marked something meanwhile
	}
	number := atomic.AddUint32(&shared.Epoch, 1)
	c.grow(number)
	c.epochs[number] = epoch{at: bootTime(), cause: observe.CauseTick, stage: stage}
}

// forget removes everything of a container from the maps.
func (o *Observer) forget(c *container) {
	o.forgetCalls(c)
	for k := range c.roles {
		o.objects.Roles.Delete(bpfRoleKey{Ino: k[0], Dev: uint32(k[1]), Uid: uint32(c.id)})
	}
	for _, k := range c.checked {
		o.objects.Checks.Delete(k)
	}
	for abi := range uint32(8) {
		o.objects.Permitted.Delete(bpfAllowedKey{Uid: uint32(c.id), Abi: abi})
	}
}

// forgetCalls removes what was recorded of a container, but for the names of what runs in it.
func (o *Observer) forgetCalls(c *container) {
	for k := range c.calls {
		o.objects.Calls.Delete(k)
	}
	for k := range c.bursts {
		o.objects.Bursts.Delete(k)
	}
	for k := range c.args {
		o.objects.Args.Delete(k)
	}
	for k := range c.denied {
		o.objects.Denials.Delete(k)
	}
	for _, k := range c.cells {
		o.objects.Cells.Delete(k)
	}
	o.forgetMarks(c)
	c.empty() // and not cleared: maps keep their size, and a container that is followed stays for months
}

// forgetMarks removes those of the epochs so far.
func (o *Observer) forgetMarks(c *container) {
	last := atomic.LoadUint32(&o.shared.containers[c.index].Epoch)
	for ; c.swept <= last; c.swept++ {
		o.objects.Marks.Delete(bpfMarkKey{Uid: uint32(c.id), Epoch: c.swept})
	}
}

// bootTime is the clock that the programs use.
func bootTime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic(err) // it exists since Linux 2.6.39
	}
	return time.Duration(ts.Nano())
}

func cString(chars []int8) string {
	b := unsafe.Slice((*byte)(unsafe.Pointer(&chars[0])), len(chars))
	if end := bytes.IndexByte(b, 0); end >= 0 {
		b = b[:end]
	}
	return string(b)
}
