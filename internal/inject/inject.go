// SPDX-License-Identifier: Apache-2.0

// Package inject puts a seccomp filter into every thread of processes that already run, without restarting them and
// without their help, in helper processes that may be killed at any moment. It also reads installed filters back and
// interrupts held calls. It judges nothing: which filter, and for whom, is the caller's.
package inject

import (
	"time"

	"github.com/whittle-sec/whittle/internal/syscalls"
	"golang.org/x/net/bpf"
)

// Request says which processes get which filter.
type Request struct {
	// Cgroup is the container's directory in a cgroup v2 tree: its processes, and those of the groups below, are meant,
	// and its freezer is used. Without one, PIDs and their descendants are meant.
	Cgroup string `json:"cgroup,omitempty"`
	// PIDs are known processes of the container, as this process sees them.
	PIDs []int `json:"pids,omitempty"`
	// Starts are the start times of PIDs (clock ticks since boot, as in /proc/PID/stat) where the caller knows them: a
	// process that started at another time is another one. A missing or zero one is not checked.
	Starts []uint64 `json:"starts,omitempty"`
	// MountNS is the inode of the mount namespace outside of which no process is touched. 0 means any. It is never this
	// process's own.
	MountNS uint64 `json:"mount_ns,omitempty"`
	// Program is the filter.
	Program []bpf.RawInstruction `json:"program"`
	// Listener asks for the filter's notification descriptor, one per process that did not inherit the filter.
	Listener bool `json:"listener,omitempty"`
	// Skip leaves processes alone whose newest filter is Program already, so that a second attach reaches only newcomers.
	// Without Listener they are always left alone: the same filter twice only costs.
	Skip bool `json:"skip,omitempty"`
	// NoFreeze does not use the cgroup's freezer: processes are taken one after the other until none is new.
	NoFreeze bool `json:"no_freeze,omitempty"`
	// Patience bounds the wait for a thread that cannot stop (it waits for its vfork child, or for a disk). 0 means 2 s.
	Patience time.Duration `json:"patience,omitempty"`
}

// How the filter came into a process.
const (
	ByTSync     = "tsync"      // one thread loaded it for all
	PerThread   = "per thread" // each thread loaded its own, because their chains of filters differ
	ByThemself  = "inherited"  // it was forked by a process that had it
	ByRecovery  = "recovered"  // a guardian finished what a killed injector began
	skippedMark = "skipped: "
)

// Process is what became of one process.
type Process struct {
	PID        int           `json:"pid"`
	Start      uint64        `json:"start"`
	Threads    int           `json:"threads"`
	How        string        `json:"how,omitempty"`          // one of the constants, or "skipped: " and why
	NoNewPrivs bool          `json:"no_new_privs,omitempty"` // the kernel wanted it set, and it was not
	Pause      time.Duration `json:"pause"`                  // how long its stopped thread stood still
	ABI        syscalls.ABI  `json:"abi,omitzero"`
	Listener   int           `json:"-"`                 // a descriptor of the caller's, or -1
	More       []int         `json:"-"`                 // further listeners: one per thread whose chain differs
	Filters    int           `json:"filters,omitempty"` // in its chain now, this one included
	Err        string        `json:"err,omitempty"`
}

// Result of an injection.
type Result struct {
	Processes []Process
	// Frozen is how long the whole container stood still; 0 when processes were taken one by one.
	Frozen time.Duration
	Passes int
	// Complete means that every process found has the filter in all its threads, and that a last look found no new one.
	Complete bool
	Problems []string
}

// Close the listeners of the result that are still in it.
func (r *Result) Close() {
	for i := range r.Processes {
		r.Processes[i].closeListeners()
	}
}
