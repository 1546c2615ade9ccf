// SPDX-License-Identifier: Apache-2.0

package inject

import (
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Scheduling policies (sched.h).
const (
	schedNormal = 0
	schedFIFO   = 1
	schedBatch  = 3
	schedIdle   = 5
)

// boost a stopped thread to real time while it makes our calls: on a busy machine it would wait in the run queue after each
// of them, for milliseconds. Where that is not allowed it waits.
func boost(tid int, j *journal) {
	was, err := unix.SchedGetAttr(tid, 0)
	if err != nil || was.Policy != schedNormal && was.Policy != schedBatch && was.Policy != schedIdle {
		return
	}
	j.sched, j.fifo = *was, 1
	if unix.SchedSetAttr(tid, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: schedFIFO, Priority: 1}, 0) != nil {
		j.fifo = 0
	}
}

func unboost(tid int, j *journal) {
	if j.fifo == 0 {
		return
	}
	const keepable = 0x01 // SCHED_FLAG_RESET_ON_FORK; the others are for what is not restored
	back := j.sched
	back.Size, back.Flags = unix.SizeofSchedAttr, back.Flags&keepable
	_ = unix.SchedSetAttr(tid, &back, 0) // it was allowed a moment ago
	j.fifo = 0
}

// boostSelf makes the calling thread real time, above what it traces. The result takes it back.
func boostSelf() (back func()) {
	was, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		return func() {}
	}
	if unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: schedFIFO, Priority: 2}, 0) != nil {
		return func() {}
	}
	return func() { _ = unix.SchedSetAttr(0, was, 0) }
}

// leaveRseq moves a thread that was stopped in a restartable sequence (rseq(2)) to the sequence's abort handler, as the
// kernel would: after our calls, which are outside of the sequence, the kernel no longer knows that it was in one.
func leaveRseq(tid int, regs *registers, mem memory) {
	if _, inCall := blockedIn(regs); inCall {
		return
	}
	var conf struct {
		pointer          uint64
		size, sig, flags uint32
		_                uint32
	}
	if ptrace(unix.PTRACE_GET_RSEQ_CONFIGURATION, tid, unsafe.Sizeof(conf), uintptr(unsafe.Pointer(&conf))) != nil ||
		conf.pointer == 0 {
		return
	}
	var area, cs [32]byte // struct rseq, struct rseq_cs
	if !mem.read(area[:], conf.pointer) {
		return
	}
	at := binary.NativeEndian.Uint64(area[8:])
	if at == 0 || !mem.read(cs[:], at) {
		return
	}
	first, length := binary.NativeEndian.Uint64(cs[8:]), binary.NativeEndian.Uint64(cs[16:])
	if programCounter(regs)-first < length {
		setProgramCounter(regs, binary.NativeEndian.Uint64(cs[24:]))
	}
}
