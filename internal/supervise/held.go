// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/syscalls"
)

// Container is the caller's handle for a container. It is never reused, and never NoContainer.
type Container uint64

// NoContainer is the one value that is no handle.
const NoContainer = ^Container(0)

// Held is one call that waits in the kernel for an answer. What the arguments point at is not part of it: the caller's
// other threads can change that memory after the answer.
type Held struct {
	Container Container
	ID        uint64 // the kernel's; unique for the listener. An interrupted call that starts again has a new one
	TID       int    // in the agent's pid namespace; 0 when the thread is not visible there
	Call      syscalls.Call
	Args      [6]uint64
	IP        uint64 // of the instruction after the system call's

	listener int // open while the judge runs, and no longer
}

// Valid reports whether the caller still waits. What /proc said about TID is about the caller only when Valid is true
// after it was read: else the thread may have ended and its id gone to another. Ask only inside the judge, which is as
// long as the listener is sure to be open; the zero Held is never valid.
func (h Held) Valid() bool { return h.ticket().waits() }

// Verdict is the answer to a held call. The zero value refuses with EPERM.
type Verdict struct {
	Allow bool
	// Later parks the call: it stays held until Settle answers it, and the judge goes on with the next one. What its
	// holder never settles, or there is no room for, gets the rest of the Verdict, at the latest when Run ends.
	Later bool
	// Errno of a refusal. One that is 0, negative or the kernel's own (ERESTARTSYS …) becomes EPERM, so that a refusal
	// never looks like success and never starts the call again.
	Errno int32
}

// Judge answers held calls. It may run on any worker, but never twice at once for one container, and each run sees what
// the one before it wrote: what only this container's judge touches needs no lock. There are few workers for all
// containers, so it must not block for long. One that panics has refused.
type Judge func(Held) Verdict

// Past the last errno that user space may see: include/linux/errno.h keeps 512 and up for the kernel itself.
const endErrno = 512

// errno of a refusal, as the caller will see it.
func (v Verdict) errno() unix.Errno {
	if v.Errno <= 0 || v.Errno >= endErrno {
		return unix.EPERM
	}
	return unix.Errno(v.Errno)
}

// Counters say what became of the held calls. Received = Allowed + Refused + Gone + Errors + Parked, and those that a
// judge has at this moment.
type Counters struct {
	Received uint64 `json:"received"`
	Allowed  uint64 `json:"allowed"`
	Refused  uint64 `json:"refused"` // by the judge, by its panic, or because the call has no name here
	Gone     uint64 `json:"gone"`    // judged, but the caller had died or was interrupted meanwhile
	Errors   uint64 `json:"errors"`  // the kernel took neither the answer nor a refusal

	Parked uint64 `json:"parked"` // that wait for Settle now

	Panics  uint64 `json:"panics"`  // of judges; each is also in Refused or Gone
	Unknown uint64 `json:"unknown"` // of an architecture or number that Whittle has no name for: refused unasked
	Lost    uint64 `json:"lost"`    // listeners closed because they could not be read: their calls fail from then on
}
