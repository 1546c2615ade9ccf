// SPDX-License-Identifier: Apache-2.0

package inject

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"
	"unsafe"

	"github.com/whittle-sec/whittle/internal/syscalls"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Attestation is the filters of a process, oldest first, as the kernel has them.
type Attestation struct {
	PID     int                    `json:"pid"`
	Start   uint64                 `json:"start"`
	Threads int                    `json:"threads"`
	Uneven  bool                   `json:"uneven,omitempty"` // its threads have different numbers of filters
	Filters [][]bpf.RawInstruction `json:"filters"`          // of the thread with the most
	Err     string                 `json:"err,omitempty"`
}

// Attest reads the filters of processes in a helper process. Each process stands still for a moment.
func Attest(ctx context.Context, exe string, pids []int) ([]Attestation, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("attest: %w", err)
	}
	ask, err := newPayload(pids)
	if err != nil {
		return nil, err
	}
	defer unix.Close(ask)
	var out []Attestation
	answered := errors.New("attest: the helper did not answer")
	err = helper(exe, message{Kind: kindAttest}, []int{ask}, nil, func(m message, fds []int) {
		if m.Kind == kindAttested && len(fds) == 1 {
			answered = readPayload(fds[0], &out)
		}
		closeAll(fds)
	})
	return out, errors.Join(err, answered)
}

func serveAttest(c conn, ask int) error {
	var pids []int
	if err := readPayload(ask, &pids); err != nil {
		return err
	}
	all := make([]Attestation, 0, len(pids))
	for _, pid := range pids {
		all = append(all, attest(pid))
	}
	answer, err := newPayload(all)
	if err != nil {
		return err
	}
	defer unix.Close(answer)
	return c.send(message{Kind: kindAttested}, answer)
}

// Installed filters of a process, oldest first. The process stands still for a moment. Call it in a process that itself is
// under no filter, or else the kernel refuses.
func Installed(pid int) ([][]bpf.RawInstruction, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	a := attest(pid)
	if a.Err != "" {
		return nil, errors.New(a.Err)
	}
	return a.Filters, nil
}

// attest a process on the calling thread.
func attest(pid int) (a Attestation) {
	a.PID = pid
	tg, err := prepare(pid, 0)
	if err != nil {
		a.Err = err.Error()
		return a
	}
	defer tg.close()
	a.Start, a.Threads, a.Uneven = tg.start, len(tg.tasks), tg.uneven
	th, err := tg.stop(tg.tasks[0].tid, time.Second)
	if err != nil {
		a.Err = fmt.Sprintf("stop process %d: %v", pid, err)
		return a
	}
	defer th.release()
	for i := range maxFilters {
		p, err := filterAt(th.tid, i)
		if errors.Is(err, unix.ENOENT) {
			return a
		}
		if err != nil {
			a.Err = fmt.Sprintf("read filter %d of process %d: %v", i, pid, err)
			return a
		}
		a.Filters = append(a.Filters, p)
	}
	a.Err = fmt.Sprintf("process %d has more than %d filters", pid, maxFilters)
	return a
}

// filterAt an index of a stopped thread's chain, the oldest first. ENOENT means that there are no more; EINVAL, that there
// are none at all.
func filterAt(tid, i int) ([]bpf.RawInstruction, error) {
	n, err := filterLen(tid, i)
	if err != nil {
		return nil, err
	}
	p := make([]bpf.RawInstruction, n)
	if n == 0 {
		return p, nil
	}
	_, _, errno := unix.RawSyscall6(unix.SYS_PTRACE, unix.PTRACE_SECCOMP_GET_FILTER, uintptr(tid), uintptr(i),
		uintptr(unsafe.Pointer(&p[0])), 0, 0)
	if errno != 0 {
		return nil, errno
	}
	return p, nil
}

func filterLen(tid, i int) (int, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_PTRACE, unix.PTRACE_SECCOMP_GET_FILTER, uintptr(tid), uintptr(i), 0, 0, 0)
	switch {
	case errno == unix.EINVAL && i == 0: // it is in no filter mode
		return 0, unix.ENOENT
	case errno != 0:
		return 0, errno
	case n > unix.BPF_MAXINSNS:
		return 0, unix.EMSGSIZE
	}
	return int(n), nil
}

// newestIs says whether a stopped thread's newest filter is the program. Not knowing means no.
func newestIs(tid int, program []byte) bool {
	newest := -1
	for i := range maxFilters {
		n, err := filterLen(tid, i)
		if err != nil {
			if !errors.Is(err, unix.ENOENT) {
				return false
			}
			break
		}
		if newest = i; n == 0 {
			return false
		}
	}
	if newest < 0 {
		return false
	}
	p, err := filterAt(tid, newest)
	return err == nil && bytes.Equal(rawBytes(p), program)
}

// abiOfTask of a stopped thread; 0 if that cannot be told.
func abiOfTask(tid int) syscalls.ABI {
	var r registers
	if getRegisters(tid, &r) != nil {
		return 0
	}
	return abiOf(&r)
}

// Kick interrupts threads, so that a call of theirs that is held is notified again. Threads that are gone are no error.
func Kick(ctx context.Context, exe string, tids []int) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("kick: %w", err)
	}
	ask, err := newPayload(tids)
	if err != nil {
		return err
	}
	defer unix.Close(ask)
	answered := errors.New("kick: the helper did not answer")
	err = helper(exe, message{Kind: kindKick}, []int{ask}, nil, func(m message, fds []int) {
		if m.Kind == kindDone {
			answered = nil
			if m.Err != "" {
				answered = errors.New(m.Err)
			}
		}
		closeAll(fds)
	})
	return errors.Join(err, answered)
}

func serveKick(c conn, ask int) error {
	var tids []int
	if err := readPayload(ask, &tids); err != nil {
		return err
	}
	var errs []error
	for _, tid := range tids {
		if err := kick(tid); err != nil && !absent(err) {
			errs = append(errs, fmt.Errorf("kick thread %d: %w", tid, err))
		}
	}
	done := message{Kind: kindDone}
	if err := errors.Join(errs...); err != nil {
		done.Err = err.Error()
	}
	return c.send(done)
}

func kick(tid int) error {
	s, err := readStatus(procPath(tid, "/status"))
	if err != nil {
		return err
	}
	tg, err := prepare(s.tgid, 0)
	if err != nil {
		return err
	}
	defer tg.close()
	th, err := tg.stop(tid, time.Second)
	if err != nil {
		return err
	}
	th.release()
	return nil
}
