// SPDX-License-Identifier: Apache-2.0

package inject

import (
	"fmt"
	"sync/atomic"
	"unsafe"

	"github.com/whittle-sec/whittle/internal/syscalls"
	"golang.org/x/sys/unix"
)

// stage of the one injection that is under way. Only one thread at a time runs with registers that are not its own.
type stage = uint32

const (
	idle  stage = iota // no thread is in our hands
	armed              // the guard is aimed at a thread, whose registers are its own
	saved              // its registers, mask and priority may be ours
	// Ours, and the named call may have been made.
	inMmap
	inSeccomp
	inPrctl
	inClose
	inMunmap
	restoring // the registers are being given back
)

// journal is what a killed tracer leaves behind: enough to give the thread back its registers. It is a memfd that the
// caller of Run, the guardian and the tracer have mapped, so that writing it costs no system call while a thread stands
// still, and it lives as long as one of them. The tracer writes stage last.
type journal struct {
	ticks uint64 // grows while the tracer gets on
	froze uint32 // the container's freezer has to be given back: one of the below
	stage stage

	pid, tid   int32
	start      uint64
	abi        uint32
	wasStopped uint32 // a stop signal had stopped the process before
	listener   uint32 // the filter comes with one
	fetched    uint32 // and the caller of Run has it
	cured      uint32 // see thread.settle
	regs       registers
	mask       uint64
	site       uint64 // the call instruction
	scratch    uint64 // where the program is, or 0
	scratchLen uint64
	fd         int32 // the listener's number in the process, or -1
	installed  uint32
	nnp        uint32
	fifo       uint32 // its scheduling was changed; before that it was:
	sched      unix.SchedAttr
}

// What the container's freezer is owed.
const (
	nothing uint32 = iota
	thaw           // it did not stand still before
	freeze         // it did
)

const journalSize = 4096

// A record that outgrows its file does not compile.
var _ [journalSize - unsafe.Sizeof(journal{})]byte

func newJournalFile() (int, error) {
	fd, err := unix.MemfdCreate("whittle-journal", unix.MFD_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("create the journal: %w", err)
	}
	if err := unix.Ftruncate(fd, journalSize); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("size the journal: %w", err)
	}
	return fd, nil
}

// openJournal maps the file. The helpers never unmap it.
func openJournal(fd int) (*journal, func(), error) {
	mem, err := unix.Mmap(fd, 0, journalSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, nil, fmt.Errorf("map the journal: %w", err)
	}
	return (*journal)(unsafe.Pointer(&mem[0])), func() { unix.Munmap(mem) }, nil
}

func (j *journal) at() stage       { return atomic.LoadUint32(&j.stage) }
func (j *journal) set(s stage)     { atomic.StoreUint32(&j.stage, s); j.tick() }
func (j *journal) tick()           { atomic.AddUint64(&j.ticks, 1) }
func (j *journal) ticked() uint64  { return atomic.LoadUint64(&j.ticks) }
func (j *journal) owed() uint32    { return atomic.LoadUint32(&j.froze) }
func (j *journal) owe(what uint32) { atomic.StoreUint32(&j.froze, what) }

// begin the record of a thread. The guard is aimed after it.
func (j *journal) begin(th *thread, wasStopped bool) {
	j.pid, j.tid, j.start = int32(th.pid), int32(th.tid), th.start
	j.wasStopped, j.listener, j.fetched = flag(wasStopped), 0, 0
	j.scratch, j.scratchLen, j.fd, j.installed, j.nnp, j.fifo = 0, 0, -1, 0, 0, 0
	j.set(armed)
}

// save what the thread must get back.
func (j *journal) save(regs *registers, mask uint64, site uint64, abi syscalls.ABI) {
	j.regs, j.mask, j.site, j.abi = *regs, mask, site, uint32(abi)
	j.set(saved)
}

func flag(b bool) uint32 {
	if b {
		return 1
	}
	return 0
}
