// SPDX-License-Identifier: Apache-2.0

// Package kernel observes containers with BPF programs and hands out observe.Trace values. It decides nothing about what
// it sees.
package kernel

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// ID of an observed container, unique within one Observer while it is observed.
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
	// StopSignal of the image; 0 means SIGTERM.
	StopSignal int
}

// Allowed is what a filter that can deny lets through, for Watch.
type Allowed struct {
	Calls map[syscalls.ABI]syscalls.Set
	// Checked are calls allowed only with some arguments: EPERM from one of them may be the filter's.
	Checked map[syscalls.ABI]syscalls.Set
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
	Count     uint64 // how many of this (container, call, errno) so far; a repeated denial is reported at powers of two
}

// ErrUnsupported is returned, wrapped with the reason, when this kernel cannot observe.
var ErrUnsupported = errors.New("this kernel cannot observe system calls")

var errTODO = errors.New("not built yet")

// Observer owns the BPF programs. They are attached only while a container needs them.
type Observer struct{}

// Open loads the programs; nothing is attached yet. It needs root, BTF and Linux 5.15.
func Open(log *slog.Logger) (*Observer, error) { return nil, errTODO }

// Run peeks at the maps about once a second, begins epochs and reads denials, until ctx is done.
func (o *Observer) Run(ctx context.Context) error { return errTODO }

// Observe starts learning from a container. When it returns nil, no later call of the container is missed.
func (o *Observer) Observe(t Target) (ID, error) { return 0, errTODO }

// Watch reports what the container's filter denies and records nothing else.
func (o *Observer) Watch(t Target, a Allowed) (ID, error) { return 0, errTODO }

// Trace is what was observed so far, peeked now.
func (o *Observer) Trace(id ID) (observe.Trace, error) { return observe.Trace{}, errTODO }

// Finish drains what is left, forgets the container and detaches what nobody needs any more. ended tells that the
// container has exited.
func (o *Observer) Finish(id ID, ended bool) (observe.Trace, error) { return observe.Trace{}, errTODO }

// Denials of all containers. A reader that is too slow loses the oldest; the loss is counted in the account.
func (o *Observer) Denials() <-chan Denial { return nil }

// Close detaches and unloads everything.
func (o *Observer) Close() error { return errTODO }
