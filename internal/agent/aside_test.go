// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// One container's jobs are done one at a time, in order, and not without end; one that fails takes no other along.
func TestAside(t *testing.T) {
	failed := 0
	a := &aside{slots: make(chan struct{}, 2), used: wallTime, failed: func(any) { failed++ }}
	begun, release := make(chan int, 1), make(chan struct{})
	var wg sync.WaitGroup
	var order []int
	wg.Add(maxAside)
	a.do(func() { begun <- 0; <-release; panic("hostile") })
	<-begun
	for i := range maxAside {
		if !a.do(func() { order = append(order, i); wg.Done() }) {
			t.Fatalf("job %d was not taken", i)
		}
	}
	if a.do(func() {}) {
		t.Error("one job too many was taken")
	}
	close(release)
	wg.Wait()
	for i, n := range order {
		if i != n {
			t.Fatalf("done in the order %v", order)
		}
	}
	if failed != 1 || len(a.slots) > 1 {
		t.Errorf("%d failed, %d slots are taken", failed, len(a.slots))
	}
}

// Whoever has many jobs waits for everybody else between any two.
func TestAsideIsFair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slots := make(chan struct{}, 1)
		slots <- struct{}{} // nothing is done yet
		many, one := &aside{used: wallTime, slots: slots}, &aside{used: wallTime, slots: slots}
		before, first := 0, -1
		for range maxAside {
			many.do(func() { before++ })
		}
		synctest.Wait()
		one.do(func() { first = before })
		synctest.Wait()
		<-slots
		synctest.Wait()
		if first < 0 || first > 1 {
			t.Errorf("%d jobs of another container came first", first)
		}
	})
}

// A container that has everything read anew for each call waits for itself: it does not keep the processors busy.
func TestAsideIsAffordable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const each, jobs = 200 * time.Millisecond, 110
		a := &aside{slots: make(chan struct{}, 1), used: wallTime}
		begun := time.Now()
		for range jobs {
			a.do(func() { time.Sleep(each) })
		}
		time.Sleep(readBurst + each)
		synctest.Wait()
		left := func() (jobs int, working bool) {
			a.mu.Lock()
			defer a.mu.Unlock()
			return len(a.jobs), a.working
		}
		if waiting, _ := left(); jobs-waiting < int(readBurst/each) {
			t.Errorf("%d jobs were done within what everybody has", jobs-waiting)
		}
		for working := true; working; _, working = left() {
			time.Sleep(time.Second)
			synctest.Wait()
		}
		if took, least := time.Since(begun), readShare*(jobs*each-2*readBurst); took < least {
			t.Errorf("%d jobs of %s took %s, want %s at least", jobs, each, took, least)
		}
	})
}

// wallTime stands in for a processor's where jobs sleep.
func wallTime() time.Duration { return time.Duration(time.Now().UnixNano()) }
