// SPDX-License-Identifier: Apache-2.0

package inject

import (
	"context"
	"errors"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

var errNotYet = errors.New("not implemented")

// Run the injection in helper processes: exe, given the one argument "inject", calls Serve.
func Run(ctx context.Context, exe string, r Request) (Result, error) { return Result{}, errNotYet }

// Kick interrupts threads, so that a call of theirs that is held is notified again.
func Kick(ctx context.Context, exe string, tids []int) error { return errNotYet }

// Attestation is the filters of a process, oldest first, as the kernel has them.
type Attestation struct {
	PID     int                    `json:"pid"`
	Start   uint64                 `json:"start"`
	Threads int                    `json:"threads"`
	Uneven  bool                   `json:"uneven,omitempty"` // its threads have different numbers of filters
	Filters [][]bpf.RawInstruction `json:"filters"`          // of its first thread that lives
	Err     string                 `json:"err,omitempty"`
}

// Attest reads the filters of processes in a helper process. Each process stands still for a moment.
func Attest(ctx context.Context, exe string, pids []int) ([]Attestation, error) { return nil, errNotYet }

// Serve is the helper's side of Run, Kick and Attest. It is asked through a unix socket.
func Serve(socket int) error { return errNotYet }

func (p *Process) closeListeners() {
	for _, fd := range append(p.More, p.Listener) {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	p.Listener, p.More = -1, nil
}

func ptrace(request int, tid int, addr, data uintptr) error {
	if _, _, errno := unix.RawSyscall6(unix.SYS_PTRACE, uintptr(request), uintptr(tid), addr, data, 0, 0); errno != 0 {
		return errno
	}
	return nil
}
