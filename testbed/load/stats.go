// SPDX-License-Identifier: Apache-2.0

package load

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/bits"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// mostErrors is how many different errors are kept as text.
const mostErrors = 16

// Stats of a load.
type Stats struct {
	Requests int // answered, rightly
	Failed   int // all that were not: refused ones and late ones, too
	Refused  int // connections that were refused
	Reset    int // requests whose connection was broken by the other side
	Late     int // no connection or no answer in time
	// Stale connections had been closed by the service between two requests. They are no failures: the request was made again
	// over another connection, and is counted by what became of that.
	Stale int
	Took  time.Duration
	// LongestGap is the longest time in which no request was answered, of any worker.
	LongestGap time.Duration
	// Latencies of the answered requests, with the connection where it is a new one. They are right to 3 %.
	P50, P99, Max time.Duration
	Errors        map[string]int // the first few different ones
}

// PerSecond is how many requests were answered in a second.
func (s Stats) PerSecond() float64 {
	if s.Took <= 0 {
		return 0
	}
	return float64(s.Requests) / s.Took.Seconds()
}

func (s Stats) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d requests in %v (%.0f/s), %d failed (%d refused, %d reset, %d late), %d stale, longest gap %v, p50 %v, p99 %v, max %v",
		s.Requests, s.Took.Round(time.Millisecond), s.PerSecond(), s.Failed, s.Refused, s.Reset, s.Late, s.Stale,
		s.LongestGap.Round(10*time.Microsecond), s.P50, s.P99, s.Max.Round(time.Microsecond))
	for text, n := range s.Errors {
		fmt.Fprintf(&b, "; %d× %s", n, text)
	}
	return b.String()
}

// counts of all workers.
type counts struct {
	mu        sync.Mutex
	s         Stats
	began     time.Time
	last      time.Time // when a request was answered last
	latencies [64 * steps]int
}

// steps of a power of two, in the histogram of microseconds.
const steps = 32

func newCounts(now time.Time) *counts {
	return &counts{began: now, last: now, s: Stats{Errors: make(map[string]int)}}
}

func (c *counts) answered(start, now time.Time) {
	took := now.Sub(start)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.s.Requests++
	c.s.Max = max(c.s.Max, took)
	c.s.LongestGap = max(c.s.LongestGap, now.Sub(c.last))
	if now.After(c.last) {
		c.last = now
	}
	c.latencies[bucket(uint64(took/time.Microsecond))]++
}

func (c *counts) stale() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.s.Stale++
}

func (c *counts) fail(err error) {
	text := err.Error()
	if at := strings.LastIndex(text, "->"); at >= 0 { // "read tcp 127.0.0.1:41234->…": else each is another text
		text = "…" + text[at:]
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.s.Failed++
	switch {
	case errors.Is(err, unix.ECONNREFUSED):
		c.s.Refused++
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded), errors.Is(err, unix.ETIMEDOUT):
		c.s.Late++
	case gone(err):
		c.s.Reset++
	}
	if _, ok := c.s.Errors[text]; ok || len(c.s.Errors) < mostErrors {
		c.s.Errors[text]++
	}
}

func (c *counts) stats(now time.Time) Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.s
	s.Took = now.Sub(c.began)
	s.LongestGap = max(s.LongestGap, now.Sub(c.last)) // it may not have ended
	s.P50, s.P99 = c.quantile(0.5), c.quantile(0.99)
	s.Errors = maps.Clone(c.s.Errors)
	return s
}

// quantile of the latencies, rounded up.
func (c *counts) quantile(q float64) time.Duration {
	seen := 0
	for i, n := range c.latencies {
		seen += n
		if n > 0 && float64(seen) >= q*float64(c.s.Requests) {
			return time.Duration(most(i)) * time.Microsecond
		}
	}
	return 0
}

// bucket of a number: exact below steps, and 32 for each power of two above.
func bucket(v uint64) int {
	if v < steps {
		return int(v)
	}
	shift := bits.Len64(v) - 6 // steps is 1<<5
	return (shift+1)*steps + int(v>>shift) - steps
}

// most is the largest number of a bucket.
func most(i int) uint64 {
	if i < steps {
		return uint64(i)
	}
	shift := i/steps - 1
	return (uint64(i%steps)+steps+1)<<shift - 1
}
