// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"
)

// A request that takes longer counts as failed.
const patience = 30 * time.Second

// request is one connection: made, used once, closed.
type request struct {
	began time.Time
	took  time.Duration
	err   error
}

// refused tells whether nobody listened.
func (r request) refused() bool { return errors.Is(r.err, syscall.ECONNREFUSED) }

// ask is one use of a service over a connection of its own.
type ask func(conn net.Conn, worker int) error

// clients open a new connection for each request, one after another, until they are stopped.
type clients struct {
	addr string
	ask  ask
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu   sync.Mutex
	done []request
}

func startClients(ctx context.Context, addr string, workers int, a ask) *clients {
	ctx, stop := context.WithCancel(ctx)
	c := &clients{addr: addr, ask: a, stop: stop}
	for worker := range workers {
		c.wg.Go(func() {
			for ctx.Err() == nil {
				r := c.once(worker)
				c.mu.Lock()
				c.done = append(c.done, r)
				c.mu.Unlock()
				if r.err != nil {
					time.Sleep(time.Millisecond) // refused at once, it would count thousands of times
				}
			}
		})
	}
	return c
}

func (c *clients) once(worker int) request {
	r := request{began: time.Now()}
	conn, err := net.DialTimeout("tcp", c.addr, patience)
	if err == nil {
		err = errors.Join(conn.SetDeadline(r.began.Add(patience)), c.ask(conn, worker))
		conn.Close()
	}
	r.took, r.err = time.Since(r.began), err
	return r
}

// end of the clients: what they did, in the order of its end.
func (c *clients) end() []request {
	c.stop()
	c.wg.Wait()
	return c.done
}

// slow requests are under way when the predecessor is told to stop: it is for the service to finish them.
type slow struct {
	wg   sync.WaitGroup
	mu   sync.Mutex
	errs []error
	n    int
}

// begin a slow request, and return when it is under way.
func (s *slow) begin(addr string, a ask) {
	s.mu.Lock()
	s.n++
	s.mu.Unlock()
	sent := make(chan struct{})
	s.wg.Go(func() {
		conn, err := net.DialTimeout("tcp", addr, patience)
		if err == nil {
			defer conn.Close()
			err = errors.Join(conn.SetDeadline(time.Now().Add(patience)), a(announcing{conn, sync.OnceFunc(func() { close(sent) })}, 0))
		}
		if err != nil {
			s.mu.Lock()
			s.errs = append(s.errs, err)
			s.mu.Unlock()
		}
	})
	select {
	case <-sent:
	case <-time.After(patience):
	}
}

// announcing a connection's first answer: the request was accepted.
type announcing struct {
	net.Conn
	read func()
}

func (a announcing) Read(b []byte) (int, error) {
	n, err := a.Conn.Read(b)
	a.read()
	return n, err
}

// end waits for the slow requests.
func (s *slow) end() (n int, errs []error) {
	s.wg.Wait()
	return s.n, s.errs
}

// stats of the requests that were under way at some time between two moments.
type stats struct {
	Requests int           `json:"requests"`
	Refused  int           `json:"refused"`
	Failed   int           `json:"failed"`    // otherwise, begun after new connections were held or moved
	InFlight int           `json:"in_flight"` // failed, begun before
	Longest  time.Duration `json:"longest"`   // request
	Silence  time.Duration `json:"silence"`   // longest time without a request that ended well
	P50      time.Duration `json:"p50"`
	P99      time.Duration `json:"p99"`
	Errors   []string      `json:"errors,omitempty"` // the first few
}

// maxErrors that a report quotes.
const maxErrors = 5

func summarise(all []request, from, moved, to time.Time) (s stats) {
	var took []time.Duration
	last := from
	for _, r := range all {
		ended := r.began.Add(r.took)
		if ended.Before(from) || r.began.After(to) {
			continue
		}
		s.Requests++
		if r.err != nil {
			switch {
			case r.refused():
				s.Refused++
			case r.began.Before(moved):
				s.InFlight++
			default:
				s.Failed++
			}
			if len(s.Errors) < maxErrors {
				s.Errors = append(s.Errors, r.err.Error())
			}
			continue
		}
		s.Silence = max(s.Silence, ended.Sub(last))
		last = ended
		took = append(took, r.took)
	}
	if len(took) == 0 {
		s.Silence = to.Sub(from)
		return s
	}
	slices.Sort(took)
	s.Longest, s.P50, s.P99 = took[len(took)-1], took[len(took)/2], took[len(took)*99/100]
	return s
}

// readAll that the other side has to say.
func readAll(conn net.Conn) ([]byte, error) { return io.ReadAll(io.LimitReader(conn, 1<<20)) }
