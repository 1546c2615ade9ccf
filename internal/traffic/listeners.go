// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// Listeners are listening TCP sockets of other processes, held by descriptors of our own. Close them when the process is
// about to end: as long as we hold a socket it goes on listening, and what waits in it stays there.
type Listeners struct {
	mu      sync.Mutex
	sockets []*socket // fd is -1 after Close
}

// ListenersOf the processes in the namespace: one for each socket, not for each descriptor. A socket of another
// namespace, which a process may have been given, is not among them.
func ListenersOf(pids []int, ns *NetNS) (*Listeners, []Unmovable, error) {
	if len(pids) > maxPIDs {
		return nil, nil, fmt.Errorf("find the listening sockets of %d processes: only %d are looked at", len(pids), maxPIDs)
	}
	t, err := readTables(ns)
	if err != nil {
		return nil, nil, fmt.Errorf("find the listening sockets: %w", err)
	}
	s := scan{wanted: map[uint64]bool{}, noted: map[uint64]bool{}, cookie: ns.cookie}
	for _, r := range t.tcp {
		s.wanted[r.inode] = true
	}
	for inode := range t.others {
		s.noted[inode] = false
	}
	l := &Listeners{}
	for _, pid := range pids {
		err := s.process(pid, func(inode uint64, fd int) error {
			delete(s.wanted, inode)
			return l.add(inode, fd)
		})
		if err != nil {
			return nil, nil, errors.Join(fmt.Errorf("find the listening sockets: %w", err), l.Close())
		}
	}
	slices.SortFunc(l.sockets, func(a, b *socket) int {
		return cmp.Or(a.local.Compare(b.local), cmp.Compare(a.inode, b.inode))
	})
	return l, t.unmovable(s.noted), nil
}

func (l *Listeners) add(inode uint64, fd int) error {
	if len(l.sockets) == maxListeners {
		unix.Close(fd)
		return fmt.Errorf("the processes listen on more than %d sockets", maxListeners)
	}
	s, err := describe(fd)
	if err != nil {
		unix.Close(fd)
		return err
	}
	s.inode = inode
	l.sockets = append(l.sockets, s)
	return nil
}

// Close our descriptors. A socket whose last descriptor is ours ends with it.
func (l *Listeners) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var failed error
	for _, s := range l.sockets {
		if s.fd >= 0 {
			failed = errors.Join(failed, unix.Close(s.fd))
			s.fd = -1
		}
	}
	return failed
}

// Reopen what was closed of sockets that the processes still have, so that their options can be put back as they were.
func (l *Listeners) Reopen(pids []int, ns *NetNS) error {
	again, _, err := ListenersOf(pids, ns)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.sockets {
		for _, a := range again.sockets {
			if s.fd < 0 && a.fd >= 0 && a.inode == s.inode && a.address == s.address {
				s.fd, a.fd = a.fd, -1
			}
		}
	}
	return again.Close()
}

// Forget the sockets of an address, which is left out of a Line that is formed afterwards: a port that a successor need
// not have, such as one that the kernel chose.
func (l *Listeners) Forget(port netip.AddrPort) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var failed error
	l.sockets = slices.DeleteFunc(l.sockets, func(s *socket) bool {
		if s.shown() != port {
			return false
		}
		if s.fd >= 0 {
			failed = errors.Join(failed, unix.Close(s.fd))
		}
		return true
	})
	return failed
}

// Ports are the addresses, sorted, each once. A socket for both families has the address [::].
func (l *Listeners) Ports() []netip.AddrPort {
	var out []netip.AddrPort
	for _, s := range l.sockets {
		out = append(out, s.shown())
	}
	slices.SortFunc(out, netip.AddrPort.Compare)
	return slices.Compact(out)
}

// Len is the number of sockets.
func (l *Listeners) Len() int { return len(l.sockets) }

// open calls f with each socket that is not closed, which stays open meanwhile.
func (l *Listeners) open(f func(*socket) error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var failed error
	for _, s := range l.sockets {
		if s.fd >= 0 {
			failed = errors.Join(failed, f(s))
		}
	}
	return failed
}

// Waiting is the number of connections in the accept queues: established, and not accepted yet.
func Waiting(l *Listeners) (int, error) {
	n := 0
	err := l.open(func(s *socket) error {
		queued, err := s.queued()
		n += queued
		return err
	})
	return n, err
}

// tables of the sockets of a namespace.
type tables struct {
	tcp    []row
	others map[uint64]Unmovable
}

// others are what is reported, and not moved.
var others = []struct {
	table, kind, why string
	read             func(io.Reader) ([]row, error)
}{
	{"udp", "udp socket", "what it receives is not a connection that could wait", readUDP},
	{"udp6", "udp socket", "what it receives is not a connection that could wait", readUDP},
	{"udplite", "udp socket", "what it receives is not a connection that could wait", readUDP},
	{"udplite6", "udp socket", "what it receives is not a connection that could wait", readUDP},
	{"unix", "unix socket", "two processes cannot listen on one unix socket", readUnix},
	{"sctp/eps", "sctp socket", "only tcp connections can be made to wait", readSCTP},
}

func readUDP(r io.Reader) ([]row, error) { return readInet(r, stateClosed) }
func readTCP(r io.Reader) ([]row, error) { return readInet(r, stateListen) }

func readTables(ns *NetNS) (*tables, error) {
	t := &tables{others: map[uint64]Unmovable{}}
	err := ns.Do(func() error {
		var err error
		if t.tcp, err = listening(); err != nil {
			return err
		}
		for _, o := range others {
			rows, err := readTable(o.table, o.read)
			if err != nil {
				return err
			}
			for _, r := range rows {
				name := r.name
				if name == "" {
					name = r.local.String()
				}
				t.others[r.inode] = Unmovable{o.kind, name, o.why}
			}
		}
		return nil
	})
	return t, err
}

func readTable(name string, read func(io.Reader) ([]row, error)) ([]row, error) {
	file, err := os.Open("/proc/thread-self/net/" + name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // a kernel without that protocol
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	rows, err := read(file)
	if err != nil {
		return nil, fmt.Errorf("read /proc/net/%s: %w", name, err)
	}
	return rows, nil
}

// unmovable sockets that the processes have.
func (t *tables) unmovable(have map[uint64]bool) []Unmovable {
	out := map[Unmovable]bool{}
	for inode, u := range t.others {
		if have[inode] && len(out) < maxUnmovable {
			out[u] = true
		}
	}
	return slices.SortedFunc(maps.Keys(out), func(a, b Unmovable) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name))
	})
}
