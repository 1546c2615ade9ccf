// SPDX-License-Identifier: Apache-2.0

// Package load asks a service without a pause, as its clients do, and counts what they would complain about: refused
// connections, requests that failed, and how long nobody was answered. It knows a few protocols and measures from outside; it
// starts no service and judges no number.
package load

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"net"
	"sync"
	"time"
)

// answerWait is how long a client waits for an answer unless it is told.
const answerWait = 10 * time.Second

// ErrLast is returned, wrapped, by a Talk that was answered, rightly, and told that the connection ends with that.
var ErrLast = errors.New("the connection ends")

// Talk makes one request, or several at once, over a connection, and checks what is answered; n counts the worker's requests from 0.
type Talk func(conn net.Conn, r *bufio.Reader, n int) error

// Load is how a service is asked.
type Load struct {
	Workers int           // clients at once; 0 is one
	For     time.Duration // 0 until the context ends, or Stop
	// PerConnection is how many requests are made over a connection before it is closed: 1 is a new connection for each
	// request, 0 keeps it.
	PerConnection int
	Pause         time.Duration // of a worker after each request
	Timeout       time.Duration // of a request with its connection; 0 is ten seconds
	// Record keeps each request, for times that are known only afterwards. It may be that of other loads, too. nil keeps none.
	Record *Record
}

// Running load.
type Running struct {
	end    context.CancelFunc
	done   sync.WaitGroup
	counts *counts
}

// Run the load until its time is over or the context ends. Requests that are under way then are waited for.
func Run(ctx context.Context, target Target, talk Talk, l Load) Stats {
	return Start(ctx, target, talk, l).Wait()
}

// Start the load; it goes on until Stop, until its time is over, or until the context ends.
func Start(ctx context.Context, target Target, talk Talk, l Load) *Running {
	r := &Running{counts: newCounts(time.Now())}
	if l.For > 0 {
		ctx, r.end = context.WithTimeout(ctx, l.For)
	} else {
		ctx, r.end = context.WithCancel(ctx)
	}
	for range max(l.Workers, 1) {
		w := &worker{target: target, talk: talk, load: l, counts: r.counts}
		r.done.Go(func() { target.inside(func() { w.run(ctx) }, r.counts.fail) })
	}
	return r
}

// Wait until it is over.
func (r *Running) Wait() Stats {
	r.done.Wait()
	r.end()
	return r.counts.stats(time.Now())
}

// Stop asking. Requests that are under way are waited for.
func (r *Running) Stop() Stats {
	r.end()
	return r.Wait()
}

// Now is what was counted until now.
func (r *Running) Now() Stats { return r.counts.stats(time.Now()) }

// worker is one client.
type worker struct {
	target Target
	talk   Talk
	load   Load
	counts *counts

	conn   net.Conn // nil: none is open
	reader *bufio.Reader
	used   int // requests over it
}

func (w *worker) run(ctx context.Context) {
	defer w.hangUp()
	for n := 0; ctx.Err() == nil; n++ {
		if !w.request(n) {
			// A service that refuses is not asked a million times a second.
			pause(ctx, max(w.load.Pause, time.Millisecond))
			continue
		}
		if w.load.Pause > 0 {
			pause(ctx, w.load.Pause)
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// request once, and once more where a kept connection turns out to have been closed before.
func (w *worker) request(n int) bool {
	start := time.Now()
	err := w.answer(n, start.Add(cmp.Or(w.load.Timeout, answerWait)))
	end := time.Now()
	w.load.Record.add(Request{Began: start, Ended: end, Err: err})
	if err != nil {
		w.counts.fail(err)
		return false
	}
	w.counts.answered(start, end)
	return true
}

func (w *worker) answer(n int, deadline time.Time) error {
	err := w.attempt(n, deadline)
	if err != nil && w.used > 0 && w.reader.Buffered() == 0 && gone(err) {
		w.hangUp()
		w.counts.stale()
		err = w.attempt(n, deadline)
	}
	last := errors.Is(err, ErrLast)
	if err != nil && !last {
		w.hangUp()
		return err
	}
	w.used++
	if last || w.used == w.load.PerConnection {
		w.hangUp()
	}
	return nil
}

func (w *worker) attempt(n int, deadline time.Time) error {
	if w.conn == nil {
		// Not the load's context: its end cuts no request short.
		ctx, cancel := context.WithDeadline(context.Background(), deadline)
		defer cancel()
		conn, err := w.target.dial(ctx)
		if err != nil {
			return err
		}
		w.conn, w.reader, w.used = conn, bufio.NewReader(conn), 0
	}
	_ = w.conn.SetDeadline(deadline) // a closed connection says so when it is used
	return w.talk(w.conn, w.reader, n)
}

func (w *worker) hangUp() {
	if w.conn != nil {
		w.conn.Close()
		w.conn = nil
	}
	w.used = 0
}
