// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/whittle-sec/whittle/testbed/load"
)

// A request that takes longer counts as failed.
const patience = 30 * time.Second

// workers ask at once.
const workers = 4

// clients open a new connection for each request, one after another, until they are stopped.
type clients struct {
	stop    context.CancelFunc
	running []*load.Running
	record  load.Record
}

func startClients(ctx context.Context, s *service) *clients {
	c := &clients{}
	ctx, c.stop = context.WithCancel(ctx)
	for worker := range workers {
		c.running = append(c.running, load.Start(ctx, s.target(), s.request(worker),
			load.Load{PerConnection: 1, Timeout: patience, Record: &c.record}))
	}
	return c
}

// end of the clients.
func (c *clients) end() *load.Record {
	c.stop()
	for _, r := range c.running {
		r.Wait()
	}
	return &c.record
}

// slow requests are under way when the predecessor is told to stop: it is for the service to finish them.
type slow struct {
	wg   sync.WaitGroup
	mu   sync.Mutex
	errs []error
	n    int
	last time.Time // one of them ended
}

// begin a slow request, and return when it is under way.
func (s *slow) begin(ctx context.Context, target load.Target, talk load.Talk) {
	s.mu.Lock()
	s.n++
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	sent := make(chan struct{})
	s.wg.Go(func() {
		defer cancel()
		err := target.Ask(ctx, func(conn net.Conn, _ *bufio.Reader, n int) error {
			conn = announcing{conn, sync.OnceFunc(func() { close(sent) })}
			return talk(conn, bufio.NewReader(conn), n)
		})
		s.mu.Lock()
		defer s.mu.Unlock()
		s.last = time.Now()
		if err != nil {
			s.errs = append(s.errs, err)
		}
	})
	select {
	case <-sent:
	case <-ctx.Done():
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
func (s *slow) end() { s.wg.Wait() }

// stats of the requests that were under way at some time between two moments.
type stats struct {
	Requests int
	Refused  int
	Failed   int           // otherwise, begun after new connections were held or moved
	InFlight int           // failed, begun before
	Longest  time.Duration // request
	Silence  time.Duration // longest time without a request that ended well
	P50, P99 time.Duration
	Errors   []string // the first few
}

// maxErrors that a report quotes.
const maxErrors = 5

func summarise(record *load.Record, from, moved, to time.Time) (s stats) {
	all := record.During(from, to)
	s.Requests, s.Silence = len(all), load.Silence(all, from, to)
	var took []time.Duration
	for _, r := range all {
		switch {
		case r.Err == nil:
			took = append(took, r.Took())
			continue
		case r.Refused():
			s.Refused++
		case r.Began.Before(moved):
			s.InFlight++
		default:
			s.Failed++
		}
		if len(s.Errors) < maxErrors {
			s.Errors = append(s.Errors, r.Err.Error())
		}
	}
	if len(took) > 0 {
		slices.Sort(took)
		s.Longest, s.P50, s.P99 = took[len(took)-1], took[len(took)/2], took[len(took)*99/100]
	}
	return s
}
