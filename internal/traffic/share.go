// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// sharing is what Share keeps; the kernel detaches the programs when the process that has these is gone.
type sharing struct{ closers []io.Closer }

func (s *sharing) Close() error {
	var failed error
	for _, c := range s.closers {
		failed = errors.Join(failed, c.Close())
	}
	s.closers = nil
	return failed
}

// Share lets sockets of the namespace bind these ports beside another's of the same user, while it is open: a program at
// the root of cgroup v2 sets SO_REUSEPORT and SO_REUSEADDR on them. The processes need not know.
func Share(ns *NetNS, ports []netip.AddrPort) (io.Closer, error) {
	s := &sharing{}
	if err := s.open(ns, ports); err != nil {
		return nil, errors.Join(fmt.Errorf("let a port be bound twice: %w", err), s.Close())
	}
	return s, nil
}

func (s *sharing) open(ns *NetNS, ports []netip.AddrPort) error {
	spec, err := loadBpf()
	if err != nil {
		return fmt.Errorf("read the BPF object: %w", err)
	}
	var objects struct {
		Shared *ebpf.Map     `ebpf:"shared"`
		Share4 *ebpf.Program `ebpf:"share4"`
		Share6 *ebpf.Program `ebpf:"share6"`
	}
	if err := spec.LoadAndAssign(&objects, nil); err != nil {
		return fmt.Errorf("%w: it needs setsockopt in programs at bind (Linux 6.1): %w", ErrUnsupported, err)
	}
	// The links and the programs hold what they need.
	defer objects.Shared.Close()
	defer objects.Share4.Close()
	defer objects.Share6.Close()
	for _, p := range ports {
		key := bpfSharedPort{Netns: ns.cookie, Port: networkOrder32(p.Port())}
		if err := objects.Shared.Put(key, uint8(1)); err != nil {
			return fmt.Errorf("share port %d: %w", p.Port(), err)
		}
	}
	root, err := cgroupRoot()
	if err != nil {
		return err
	}
	dir, err := os.Open(root)
	if err != nil {
		return err
	}
	defer dir.Close()
	for _, p := range []struct {
		program *ebpf.Program
		attach  ebpf.AttachType
	}{{objects.Share4, ebpf.AttachCGroupInet4Bind}, {objects.Share6, ebpf.AttachCGroupInet6Bind}} {
		// A raw link: AttachCgroup falls back to an attachment that outlives us.
		l, err := link.AttachRawLink(link.RawLinkOptions{Target: int(dir.Fd()), Program: p.program, Attach: p.attach})
		if err != nil {
			return fmt.Errorf("%w: attach to cgroup v2: %w", ErrUnsupported, err)
		}
		s.closers = append(s.closers, l)
	}
	return nil
}

// networkOrder32 is a port as bpf_sock_addr has it.
func networkOrder32(port uint16) uint32 { return uint32(networkOrder(port)) }

// networkOrder is the number that has in memory the bytes that the port has in a packet.
func networkOrder(port uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, port))
}

// cgroupRoot is where the whole of cgroup v2 is mounted, whichever controllers it has.
func cgroupRoot() (string, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", fmt.Errorf("look for cgroup v2: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		before, after, _ := strings.Cut(line, " - ")
		fields := strings.Fields(before)
		if len(fields) >= 5 && fields[3] == "/" && strings.HasPrefix(after, "cgroup2 ") {
			return unescape(fields[4]), nil
		}
	}
	return "", fmt.Errorf("%w: cgroup v2 is not mounted", ErrUnsupported)
}

// unescape a path of mountinfo, which has white space and backslashes in octal.
func unescape(path string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(path)
}
