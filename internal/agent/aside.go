// SPDX-License-Identifier: Apache-2.0

package agent

import "sync"

// Bounds of what is read about held calls.
const (
	readers  = 2   // at once, for all containers
	maxAside = 256 // calls of one container that wait for it: as many as a supervisor parks
)

// aside does one container's jobs, one after the other. The slots that it shares with the other containers are given in the
// order in which they are asked for, so that whoever has many jobs waits for everybody else between any two.
type aside struct {
	slots  chan struct{}
	failed func(err any) // a job panicked

	mu      sync.Mutex
	jobs    []func()
	working bool
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
	a.slots <- struct{}{}
	defer func() {
		<-a.slots
		if err := recover(); err != nil {
			a.failed(err)
		}
	}()
	job()
}
