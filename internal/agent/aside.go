// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Bounds of what is read about held calls. A container that maps other files before each call has them all read anew, on the
// agent's time: what it gets of that in the long run is a tenth of a processor, and its own calls wait for it.
const (
	readers   = 2   // at once, for all containers
	maxAside  = 128 // calls of one container that wait for it: half of what a supervisor parks, since it refuses what is more, in shadow too
	readBurst = 2 * time.Second
	readShare = 10
)

// aside does one container's jobs, one after the other. The slots that it shares with the other containers are given in the
// order in which they are asked for, so that whoever has many jobs waits for everybody else between any two.
type aside struct {
	slots  chan struct{}
	failed func(err any)        // a job panicked
	used   func() time.Duration // of the processor, by the calling thread

	mu      sync.Mutex
	jobs    []func()
	working bool

	// Of the goroutine that works.
	spent time.Duration // on jobs, less what the container has got since
	paid  time.Time     // until when that is counted
}

// do a job soon; false when too many wait.
func (a *aside) do(job func()) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.jobs) >= maxAside {
		return false
	}
	a.jobs = append(a.jobs, job)
	if !a.working {
		a.working = true
		go a.work()
	}
	return true
}

func (a *aside) work() {
	for {
		a.mu.Lock()
		if len(a.jobs) == 0 {
			a.jobs, a.working = nil, false
			a.mu.Unlock()
			return
		}
		job := a.jobs[0]
		a.jobs = a.jobs[1:]
		a.mu.Unlock()
		a.one(job)
	}
}

func (a *aside) one(job func()) {
	a.afford()
	a.slots <- struct{}{}
	runtime.LockOSThread() // its time is the job's
	began := a.used()
	defer func() {
		a.spent += a.used() - began
		runtime.UnlockOSThread()
		<-a.slots
		if err := recover(); err != nil {
			a.failed(err)
		}
	}()
	job()
}

// threadTime is the processor time of the calling thread: on a busy host a job takes longer than it costs.
func threadTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &u); err != nil {
		return 0 // it does not fail
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// afford waits until the container may have another job done.
func (a *aside) afford() {
	now := time.Now()
	a.spent = max(0, a.spent-now.Sub(a.paid)/readShare)
	if over := a.spent - readBurst; over > 0 {
		time.Sleep(over * readShare)
		now, a.spent = time.Now(), readBurst
	}
	a.paid = now
}
