// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"fmt"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

const (
	slotBits   = 16
	probes     = 16
	keyMountNS = 1 << 63
	keyFree    = 0
	keyBusy    = 1
	keyGone    = 2
)

// shared is the memory of the programs' .bss: the table of keys and the containers. The programs read it while it is
// written, so keys, epochs and stages are atomic.
type shared struct {
	memory      []byte
	slots       []bpfSlot
	containers  []bpfContainer
	mountNSKeys *uint32
	used        []bool
}

func mapShared(spec *ebpf.CollectionSpec, bss *ebpf.Map) (*shared, error) {
	size := int(bss.ValueSize())
	page := unix.Getpagesize()
	memory, err := unix.Mmap(bss.FD(), 0, (size+page-1)/page*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map the programs' memory: %w", err)
	}
	s := &shared{memory: memory}
	at := func(name string) (unsafe.Pointer, int) {
		v := spec.Variables[name]
		if v == nil || v.SectionName != ".bss" || int(v.Offset+v.Size()) > size {
			panic("the BPF object has no variable " + name + " in .bss")
		}
		return unsafe.Pointer(&memory[v.Offset]), int(v.Size())
	}
	p, n := at(bpfVarSlots)
	s.slots = unsafe.Slice((*bpfSlot)(p), n/int(unsafe.Sizeof(bpfSlot{})))
	p, n = at(bpfVarContainers)
	s.containers = unsafe.Slice((*bpfContainer)(p), n/int(unsafe.Sizeof(bpfContainer{})))
	p, _ = at(bpfVarMntNsKeys)
	s.mountNSKeys = (*uint32)(p)
	s.used = make([]bool, len(s.containers))
	if len(s.slots) != 1<<slotBits {
		panic("the BPF object has another number of slots")
	}
	return s, nil
}

func (s *shared) close() error { return unix.Munmap(s.memory) }

// claim finds a free container and fills it in. No program sees it before a key leads to it.
func (s *shared) claim(c bpfContainer) (index uint32, err error) {
	for i := range s.used {
		if !s.used[i] {
			s.used[i] = true
			s.containers[i] = c
			return uint32(i), nil
		}
	}
	return 0, ErrFull
}

// unpoint removes every key that leads to the container, those included that the programs added for cgroups below. What it
// has counted stays readable.
func (s *shared) unpoint(index uint32) {
	for i := range s.slots {
		slot := &s.slots[i]
		key := atomic.LoadUint64(&slot.Key)
		if key > keyGone && slot.Container == index {
			if key&keyMountNS != 0 {
				atomic.AddUint32(s.mountNSKeys, ^uint32(0))
			}
			atomic.StoreUint64(&slot.Key, keyGone)
		}
	}
	s.sweep()
}

// release forgets a container that no key leads to.
func (s *shared) release(index uint32) {
	s.containers[index] = bpfContainer{}
	s.used[index] = false
}

// sweep frees the removed keys at the end of each chain, so that a look-up that finds nothing, which is what every task
// outside pays, stays one probe long.
func (s *shared) sweep() {
	n := len(s.slots)
	for pass := range 2 { // twice around: a chain may cross the end
		for i := n - 1; i >= 0; i-- {
			next := atomic.LoadUint64(&s.slots[(i+1)%n].Key)
			if next == keyFree {
				atomic.CompareAndSwapUint64(&s.slots[i].Key, keyGone, keyFree)
			}
			if pass == 1 && i < n-probes {
				break
			}
		}
	}
}

func slotOf(key uint64) int { return int(key * 0x9E3779B97F4A7C15 >> (64 - slotBits)) }

// point makes a key lead to a container.
func (s *shared) point(key uint64, index uint32) error {
	first := slotOf(key)
	for i := range probes {
		slot := &s.slots[(first+i)%len(s.slots)]
		have := atomic.LoadUint64(&slot.Key)
		if have == key {
			return fmt.Errorf("key %#x is observed already", key)
		}
		if have != keyFree && have != keyGone || !atomic.CompareAndSwapUint64(&slot.Key, have, keyBusy) {
			continue
		}
		slot.Container = index
		atomic.StoreUint64(&slot.Key, key)
		if key&keyMountNS != 0 {
			atomic.AddUint32(s.mountNSKeys, 1)
		}
		return nil
	}
	return ErrFull
}
