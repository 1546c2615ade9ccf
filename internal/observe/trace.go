// SPDX-License-Identifier: Apache-2.0

// Package observe is the plain-value model of what the kernel saw one container do. It opens nothing: package kernel
// fills it from BPF maps, tests fill it from recorded files.
package observe

import (
	"time"

	"github.com/whittle-sec/whittle/internal/syscalls"
)

// Lane tells who in the container made a call.
type Lane uint8

// The values are shared with bpf/whittle.h.
const (
	LaneNone    Lane = 0
	LaneService Lane = 1 // the entrypoint's tree
	LaneExec    Lane = 2 // podman exec, health checks, probes
	LaneRuntime Lane = 3 // runc or crun, between loading the filter and execve
)

func (l Lane) String() string {
	switch l {
	case LaneService:
		return "service"
	case LaneExec:
		return "exec"
	case LaneRuntime:
		return "runtime"
	}
	return "unknown"
}

// Stage is the phase as the kernel marked it while it happened. The learner may move the cut afterwards.
type Stage uint8

// The values are shared with bpf/whittle.h.
const (
	StageBoot   Stage = 0
	StageRun    Stage = 1
	StageReload Stage = 2
	StageStop   Stage = 3
)

// Cause is why an epoch began.
type Cause uint8

// The values are shared with bpf/whittle.h.
const (
	CauseStart  Cause = 0 // the container was added
	CauseTick   Cause = 1 // user space's timer
	CauseReady  Cause = 2 // first successful accept of the service lane
	CauseStop   Cause = 3 // SIGTERM or the image's stop signal, from outside, to the container's init
	CauseReload Cause = 4 // SIGHUP, SIGUSR1 or SIGUSR2, from outside
)

// Role is a program in the container. Generation is 0 for the process that exec'd it, 1 for its descendants by fork.
type Role struct {
	Exe        string `json:"exe"` // path as it was exec'd, printable; "?" when unknown
	Generation uint8  `json:"generation"`
}

// Epoch is a slice of a container's time. Epochs are numbered from 0 and begin at increasing times; a mark of the kernel
// begins a new epoch at once, so every call belongs to exactly one stage.
type Epoch struct {
	Start  time.Duration `json:"start"` // since the container was added
	Cause  Cause         `json:"cause,omitempty"`
	Signal uint8         `json:"signal,omitempty"`
	Stage  Stage         `json:"stage,omitempty"` // the kernel's stage in this epoch
}

// EpochCount is a count within one epoch. It is a pair in JSON to keep traces small.
type EpochCount [2]uint64

func (e EpochCount) Epoch() uint32 { return uint32(e[0]) }
func (e EpochCount) Count() uint64 { return e[1] }

// Seen is one call of one cell: in which epochs, about how often. Counts are exact up to about 64 a thread and epoch,
// sampled one in 64 above. An epoch that user space did not peek in time may be missing between the first and the last;
// the first and the last epoch are always there.
type Seen struct {
	Call   syscalls.Call `json:"call"`
	Epochs []EpochCount  `json:"epochs"` // ascending by epoch
	// Origin is where the cell's first call of it came from; of several first ones, the worst.
	Origin Origin `json:"origin,omitempty"`
}

// Cell is a set of calls kept apart: who made them.
type Cell struct {
	Lane Lane `json:"lane"`
	Role Role `json:"role"`
	// Birth is true for calls that a task made before its first wait after exec, fork or clone.
	Birth bool   `json:"birth,omitempty"`
	Calls []Seen `json:"calls"`
}

// Burst is a distinct set of calls that one thread made between two waits, the ending wait included, and how often.
type Burst struct {
	Cell   int          `json:"cell"` // index into Trace.Cells
	ABI    syscalls.ABI `json:"abi"`
	Calls  []uint32     `json:"calls"` // ascending; only numbers below 512
	Stage  Stage        `json:"stage"`
	Epochs []EpochCount `json:"epochs"` // when it was seen and how often; the sum is exact
}

// Arg is a value of a register argument of one of the constrained calls (socket's domain, clone's namespace flags …).
type Arg struct {
	Cell  int           `json:"cell"`
	Call  syscalls.Call `json:"call"`
	Index uint8         `json:"index"`
	Value uint64        `json:"value"`
	First uint32        `json:"first"` // epoch
}

// Denied is a call that did not reach the kernel's entry point: a seccomp filter answered it with an errno.
type Denied struct {
	Lane  Lane          `json:"lane"`
	Call  syscalls.Call `json:"call"`
	Errno int32         `json:"errno"` // positive; what the caller got
	Count uint64        `json:"count"`
	First uint32        `json:"first"` // epoch
	Last  uint32        `json:"last"`
}

// Account is what observation may have missed. A trace is complete when Problems is empty.
type Account struct {
	// Attached says how long after the container's start the observer knew of it; 0 when it was there before the
	// first call.
	AttachedLate time.Duration `json:"attached_late,omitempty"`
	Late         bool          `json:"late,omitempty"` // the container was running before it was added
	// Losses counts, by the name of the kernel's counter, every path that gave up.
	Losses map[string]uint64 `json:"losses,omitempty"`
	// UnknownNumbers counts calls with a number past the largest a Set holds; they do not exist in any kernel.
	UnknownNumbers uint64 `json:"unknown_numbers,omitempty"`
	// Recorded and Drained count the distinct (cell, call) records the kernel made and user space read: they must agree.
	Recorded uint64 `json:"recorded"`
	Drained  uint64 `json:"drained"`
	// IOUring is true when the container set up an io_uring, whose operations no filter and no tracepoint sees.
	IOUring bool `json:"io_uring,omitempty"`
	// NoOrigins is why no Origin is known. No call is missing for that.
	NoOrigins string `json:"no_origins,omitempty"`
	// Cut is why observation ended before the container did, if that was not because enough had been seen.
	Cut string `json:"cut,omitempty"`
	// Gaps says in words what else is known to be missing while it was observed.
	Gaps []string `json:"gaps,omitempty"`
}

// Trace is everything observed of one container so far. It is cumulative: a later trace of the same container contains an
// earlier one.
type Trace struct {
	Arch    syscalls.ABI  `json:"arch"` // the host's native ABI
	Length  time.Duration `json:"length"`
	Ended   bool          `json:"ended"` // the container has exited and everything was drained
	Epochs  []Epoch       `json:"epochs"`
	Cells   []Cell        `json:"cells"`
	Bursts  []Burst       `json:"bursts"`
	Args    []Arg         `json:"args,omitempty"`
	Denied  []Denied      `json:"denied,omitempty"`
	Account Account       `json:"account"`
}
