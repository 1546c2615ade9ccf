// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Where the sockets of a side are in the array that the program chooses from.
var firstSlot = [...]uint32{ours: 0, owner: 1, successor: 1 + maxListeners}

// slots steer by an array of sockets, exactly: a socket is chosen by name, and one that has closed is skipped.
type slots struct {
	line    *ebpf.Map
	plans   *ebpf.Map
	program *ebpf.Program
	plan    bpfPlan
	count   [3]uint32 // by side
}

func newSlots() (*slots, error) {
	spec, err := loadBpf()
	if err != nil {
		return nil, fmt.Errorf("read the BPF object: %w", err)
	}
	var objects struct {
		Line  *ebpf.Map     `ebpf:"line"`
		Plans *ebpf.Map     `ebpf:"plans"`
		Steer *ebpf.Program `ebpf:"steer"`
	}
	if err := spec.LoadAndAssign(&objects, nil); err != nil {
		return nil, fmt.Errorf("%w: it needs programs that choose and migrate listening sockets (Linux 5.14): %w", ErrUnsupported, err)
	}
	return &slots{line: objects.Line, plans: objects.Plans, program: objects.Steer}, nil
}

// close our descriptors. A group that the program is attached to keeps it.
func (s *slots) close() error {
	return errors.Join(s.line.Close(), s.plans.Close(), s.program.Close())
}

// put the sockets of a side into the array, in place of what was there. They are in the group already.
func (s *slots) put(who side, fds []int) error {
	if len(fds) > maxListeners {
		return fmt.Errorf("%d sockets listen at one address, more than %d", len(fds), maxListeners)
	}
	for i := uint32(0); i < s.count[who]; i++ {
		if err := s.line.Delete(firstSlot[who] + i); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("forget a listening socket: %w", err)
		}
	}
	s.count[who] = 0
	for i, fd := range fds {
		if err := s.name(firstSlot[who]+uint32(i), fd); err != nil {
			return fmt.Errorf("name a listening socket to the kernel: %w", err)
		}
		s.count[who]++
	}
	return nil
}

// name a socket. It can be in one array at a time, and that of a killed process goes a little after the program that was
// attached to the group, whose last user it had: a group's old program is replaced or detached before.
func (s *slots) name(slot uint32, fd int) error {
	const tries, pause = 200, 2 * time.Millisecond
	var err error
	for range tries {
		if err = s.line.Put(slot, uint64(fd)); !errors.Is(err, unix.EBUSY) {
			return err
		}
		time.Sleep(pause)
	}
	return err
}

// empty the array, so that its sockets can be in another at once: the kernel frees it later.
func (s *slots) empty() error {
	return errors.Join(s.put(owner, nil), s.put(ours, nil), s.put(successor, nil))
}

// attach to the group that the socket is in.
func (s *slots) attach(fd int) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_EBPF, s.program.FD()); err != nil {
		return fmt.Errorf("attach to the listening sockets: %w", err)
	}
	return nil
}

// aim new connections, and what waits in a socket that closes, at a side.
func (s *slots) aim(at side) error {
	s.plan.First, s.plan.Count = firstSlot[at], s.count[at]
	return s.store()
}

// knock tells which connection is ours, for the successor.
func (s *slots) knock(from netip.AddrPort) error {
	addr := from.Addr().Unmap()
	s.plan.KnockFrom = [16]uint8{}
	s.plan.KnockProtocol = networkOrder(unix.ETH_P_IPV6)
	if addr.Is4() {
		s.plan.KnockProtocol = networkOrder(unix.ETH_P_IP)
	}
	copy(s.plan.KnockFrom[:], addr.AsSlice())
	s.plan.KnockPort = networkOrder(from.Port())
	s.plan.KnockFirst, s.plan.KnockCount = firstSlot[successor], s.count[successor]
	return s.store()
}

// quiet ends the knock.
func (s *slots) quiet() error {
	s.plan.KnockPort = 0
	return s.store()
}

func (s *slots) store() error {
	if err := s.plans.Put(uint32(0), &s.plan); err != nil {
		return fmt.Errorf("tell the kernel where connections go: %w", err)
	}
	return nil
}
