// SPDX-License-Identifier: Apache-2.0

// Package kernel observes containers with BPF programs and hands out observe.Trace values. It decides nothing about what
// it sees.
package kernel

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"

	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// ID of an observed container. It is never used twice by one Observer.
type ID uint32

// Target is a container to observe.
type Target struct {
	// CgroupID is the inode of the container's own cgroup v2 directory. 0 or 1: it has none (rootless), and MountNS
	// is the key.
	CgroupID uint64
	// MountNS is the inode of the container's mount namespace; 0 when it has none of its own.
	MountNS uint64
	// InitPID is the host's pid of the container's init. 0 when it is not born yet: the first exec is the service.
	InitPID int
	// Late is true when the container was already running.
	Late bool
	// Filtered is true when the container runs under a filter of somebody else's (an engine's default profile), so
	// that calls which never reach the kernel's entry point are looked for as long as it is observed.
	Filtered bool
	// Held is true when a supervisor answers what the container's filter holds: it tells what was refused, and the
	// programs do not.
	Held bool
	// StopSignal of the image; 0 means SIGTERM.
	StopSignal int
	// NameOf a process of a late container is the path that its program was executed by; "" when it is not known. An
	// exec tells that path, but /proc only the one without symbolic links: another role would come of it.
	NameOf func(pid int) string
}

// Allowed is what a filter that can deny lets through, for Watch.
type Allowed struct {
	Calls map[syscalls.ABI]syscalls.Set
	// Checked are calls allowed only with some arguments, so that an errno may also be the kernel's own: with arguments
	// that match one of the checks. A call whose checks are of different arguments, more than 16, or none is never told.
	Checked map[syscalls.Call][]Check
}

// Check lets a call through when argument Index, masked with Mask, equals Value.
type Check struct {
	Index       uint8
	Mask, Value uint64
}

// Denial is a call that a filter answered instead of the kernel.
type Denial struct {
	Container ID
	Time      time.Time
	PID, TID  int // in the host's pid namespace
	Comm      string
	Lane      observe.Lane
	Call      syscalls.Call
	Errno     int32
	Args      [6]uint64
	Count     uint64 // how many of this (container, lane, call, errno) so far; told at 1, 2, 4, 8 …
}

// Arrival is a process from outside that has executed its first program in a held container.
type Arrival struct {
	Container ID
	PID       int // in the host's pid namespace
}

var (
	// ErrUnsupported is returned, wrapped with the reason, when this kernel cannot observe.
	ErrUnsupported = errors.New("this kernel cannot observe system calls")
	// ErrUnknown is returned for an ID that is not observed.
	ErrUnknown = errors.New("container is not observed")
	// ErrFull is returned when no more containers can be observed.
	ErrFull = errors.New("too many containers are observed")
)

// Observer owns the BPF programs. They are attached only while a container needs them.
type Observer struct {
	log     *slog.Logger
	objects objects
	shared  *shared
	events  *ringbuf.Reader
	denials chan Denial
	arrived chan Arrival

	noOrigins string // why it is not known what memory calls come from

	mu         sync.Mutex
	links      attachments
	containers map[ID]*container
	owner      map[uint32]*container // by cell
	lastUID    uint32
	peeked     time.Time
	rested     time.Duration // boot time from which on the next epochs may begin

	places places // where the containers are, for those who must not wait for mu
}

// objects without the variables: these would map the programs' memory a second time.
type objects struct {
	bpfPrograms
	bpfMaps
}

func (o *objects) Close() error { return errors.Join(o.bpfPrograms.Close(), o.bpfMaps.Close()) }

// Open loads the programs; nothing is attached yet. It needs root, BTF and Linux 5.15.
func Open(log *slog.Logger) (*Observer, error) {
	spec, err := loadBpf()
	if err != nil {
		return nil, fmt.Errorf("read the BPF object: %w", err)
	}
	if err := describeCalls(spec); err != nil {
		return nil, err
	}
	o := &Observer{
		log:        log,
		noOrigins:  noOrigins(),
		denials:    make(chan Denial, 1024),
		arrived:    make(chan Arrival, 1024),
		containers: map[ID]*container{},
		owner:      map[uint32]*container{},
	}
	coll, err := ebpf.NewCollection(spec)
	if err != nil {
		return nil, explainLoad(err)
	}
	defer coll.Close()
	// The kernel's types took megabytes, and nothing needs them any more.
	defer debug.FreeOSMemory()
	if o.shared, err = mapShared(spec, coll.Maps[".bss"]); err != nil {
		return nil, err
	}
	if err := coll.Assign(&o.objects); err != nil {
		o.shared.close()
		return nil, fmt.Errorf("assign the BPF objects: %w", err)
	}
	if o.events, err = ringbuf.NewReader(o.objects.Events); err != nil {
		o.shared.close()
		o.objects.Close()
		return nil, fmt.Errorf("open the ring of denials: %w", err)
	}
	return o, nil
}

// explainLoad turns the loader's error into one that says what the host lacks.
func explainLoad(err error) error {
	var verifier *ebpf.VerifierError
	switch {
	case os.Geteuid() != 0:
		return fmt.Errorf("%w: loading BPF programs needs root: %v", ErrUnsupported, err)
	case errors.Is(err, ebpf.ErrNotSupported):
		return fmt.Errorf("%w: it needs BTF (/sys/kernel/btf/vmlinux) and Linux 5.15: %v", ErrUnsupported, err)
	case errors.As(err, &verifier):
		return fmt.Errorf("%w: its verifier refused a program: %w", ErrUnsupported, err)
	}
	return fmt.Errorf("%w: %w", ErrUnsupported, err)
}

// Denials of all containers.
func (o *Observer) Denials() <-chan Denial { return o.denials }

// Arrivals of all containers that are held.
func (o *Observer) Arrivals() <-chan Arrival { return o.arrived }

// Attached tells which programs run on this host now: none when nothing is observed.
func (o *Observer) Attached() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.links.names()
}

// Close detaches and unloads everything. Containers that are still observed are forgotten.
func (o *Observer) Close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	err := o.links.set(&o.objects, need{})
	return errors.Join(err, o.events.Close(), o.shared.close(), o.objects.Close())
}
