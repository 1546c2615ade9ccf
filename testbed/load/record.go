// SPDX-License-Identifier: Apache-2.0

package load

import (
	"errors"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Request is one that a client made.
type Request struct {
	Began, Ended time.Time
	Err          error // nil: it was answered, rightly
}

// Took is how long it took, with its connection where that was a new one.
func (r Request) Took() time.Duration { return r.Ended.Sub(r.Began) }

// Refused tells whether nobody listened.
func (r Request) Refused() bool { return errors.Is(r.Err, unix.ECONNREFUSED) }

// Record of requests. The zero Record is an empty one.
type Record struct {
	mu  sync.Mutex
	all []Request
}

func (r *Record) add(q Request) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, q)
}

// During are those that were under way at some time between two moments, in the order of their ends.
func (r *Record) During(from, to time.Time) (all []Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, q := range r.all {
		if !q.Ended.Before(from) && !q.Began.After(to) {
			all = append(all, q)
		}
	}
	return all
}

// Silence is the longest time between two moments in which no request was answered.
func Silence(all []Request, from, to time.Time) (longest time.Duration) {
	last := from
	for _, q := range all {
		if q.Err != nil || q.Ended.Before(last) {
			continue
		}
		end := q.Ended
		if end.After(to) {
			end = to
		}
		longest = max(longest, end.Sub(last))
		last = end
	}
	return max(longest, to.Sub(last))
}
