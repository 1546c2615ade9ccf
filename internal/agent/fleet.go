// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"sync"

	"github.com/whittle-sec/whittle/internal/judge"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// maxFleetCalls and maxReplicas bound what is remembered of one workload.
const (
	maxFleetCalls = 512
	maxReplicas   = 64
)

// fleet knows which supervised replicas of a workload needed which call that its policy does not have. Judges of all
// containers use it.
type fleet struct {
	mu     sync.Mutex
	squads map[string]*squad // by workload ID
}

type squad struct {
	replicas map[key]bool // supervised now
	needed   map[syscalls.Call]map[key]bool
}

func (f *fleet) join(workload string, k key) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.squads == nil {
		f.squads = map[string]*squad{}
	}
	s := f.squads[workload]
	if s == nil {
		s = &squad{map[key]bool{}, map[syscalls.Call]map[key]bool{}}
		f.squads[workload] = s
	}
	if len(s.replicas) < maxReplicas {
		s.replicas[k] = true
	}
}

// leave takes along what the container needed: one that is started again and again is one replica, not many.
func (f *fleet) leave(workload string, k key) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.squads[workload]
	if s == nil {
		return
	}
	delete(s.replicas, k)
	for call, who := range s.needed {
		if delete(who, k); len(who) == 0 {
			delete(s.needed, call)
		}
	}
	if len(s.replicas) == 0 {
		delete(f.squads, workload)
	}
}

// asked notes that a replica needs the call, and tells what the others did.
func (f *fleet) asked(workload string, k key, call syscalls.Call) (others judge.Fleet) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.squads[workload]
	if s == nil {
		return others
	}
	others.Replicas = len(s.replicas)
	if s.replicas[k] {
		others.Replicas--
	}
	who := s.needed[call]
	for other := range who {
		if other != k {
			others.Needed++
		}
	}
	if !s.replicas[k] {
		return others // one too many to be remembered
	}
	if who == nil && len(s.needed) < maxFleetCalls {
		who = map[key]bool{}
		s.needed[call] = who
	}
	if who != nil {
		who[k] = true
	}
	return others
}
