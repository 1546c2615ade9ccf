// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/whittle-sec/whittle/internal/api"
)

const (
	serverAttaches  = 88
	serviceAttaches = 4 // of each service
	barAttaches     = 100
	barPause        = time.Millisecond
	serverThreads   = 16
	sessions        = 6 // at the same time, that exchange all the time; one more is opened anew each time
	loadBefore      = 20 * time.Millisecond
	loadAfter       = 60 * time.Millisecond
)

// pauses of all attaches to one kind of server.
type pauses struct {
	name                        string
	attaches, processes         int
	threads, exchanges, errors  int
	each, container, took, wait []float64 // ms; each is a container's by the number of its processes
}

// attachUnderLoad measures how long attaching stops what it attaches to, and whether its clients notice.
func (b *bench) attachUnderLoad(ctx context.Context) error {
	bed, err := b.supervisedBed(ctx)
	if err != nil {
		return err
	}
	own := &pauses{name: fmt.Sprintf("a server of %d threads", serverThreads)}
	if err := bed.attachServers(ctx, own, b.rounds(serverAttaches)); err != nil {
		return err
	}
	all := []*pauses{own}
	for _, s := range bed.services() {
		p := &pauses{name: s.name}
		all = append(all, p)
		for range b.rounds(serviceAttaches) {
			if err := bed.attachService(ctx, p, s); err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
		}
	}
	tabulatePauses(&b.report, all)
	return nil
}

func (bed *supervisedBed) attachServers(ctx context.Context, p *pauses, n int) (err error) {
	bs, err := newBundles(ctx, bed.bench, bed.agent)
	if err != nil {
		return err
	}
	id, err := bs.learn(ctx, serverThreads)
	if err != nil {
		return err
	}
	for i := range n {
		b, err := bs.start(ctx, fmt.Sprintf("attach-%d", i), serverThreads)
		if err == nil {
			err = p.attach(ctx, bed.agent.client, b.name, b.port, openEcho)
		}
		_, set := bed.agent.client.SetMode(ctx, api.ModeChange{Workload: id, Mode: api.ModeLearn})
		if err := errors.Join(err, set, bs.remove(b)); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	return nil
}

func openEcho(port int) (*session, error) { return openSession(port, echoExchange) }

func (bed *supervisedBed) attachService(ctx context.Context, p *pauses, s *subject) error {
	if err := bed.mode(ctx, s, api.ModeLearn); err != nil {
		return err
	}
	i, err := bed.start(ctx, s, learned)
	if err != nil {
		return err
	}
	err = p.attach(ctx, bed.agent.client, i.container, i.port, s.open) // which enforces it from then on
	return errors.Join(err, bed.remove(i))
}

// learn the bundles' server from one container, and tell its workload's ID.
func (bs *bundles) learn(ctx context.Context, threads int) (id string, err error) {
	b, err := bs.start(ctx, "learn", threads)
	if err == nil {
		l := startLoad(b.port, openEcho)
		time.Sleep(10 * loadAfter)
		l.stop()
		if l.failed > 0 {
			err = fmt.Errorf("its clients failed %d times: %w", l.failed, l.first)
		}
	}
	if err == nil {
		err = b.stop()
	}
	for began := time.Now(); err == nil && id == "" && time.Since(began) < 15*time.Second; time.Sleep(50 * time.Millisecond) {
		var known []api.Summary
		known, err = bs.agent.client.Workloads(ctx)
		status, gone := bs.agent.client.Status(ctx)
		err = errors.Join(err, gone)
		for _, w := range known {
			if len(status.Containers) == 0 && strings.HasPrefix(w.Name, "probe") {
				id = w.ID
			}
		}
	}
	if err == nil && id == "" {
		err = errors.New("nothing was learned of the server")
	}
	return id, errors.Join(err, bs.remove(b))
}

// attach to a container while it serves.
func (p *pauses) attach(ctx context.Context, c *api.Client, name string, port int, open func(int) (*session, error)) error {
	l := startLoad(port, open)
	defer l.stop()
	time.Sleep(loadBefore)
	began := time.Now()
	r, err := c.Attach(ctx, api.AttachRequest{Container: name, Mode: api.ModeEnforce})
	if err != nil {
		return err
	}
	p.took = append(p.took, float64(time.Since(began))/1e6)
	time.Sleep(loadAfter)
	l.stop()
	if !r.Complete || len(r.Processes) == 0 {
		return fmt.Errorf("attach to %s is not complete: %v", name, r)
	}
	p.attaches++
	p.container = append(p.container, float64(r.Paused)/1e6)
	for _, x := range r.Processes {
		p.processes, p.threads = p.processes+1, p.threads+x.Threads
	}
	for _, process := range r.Processes {
		p.each = append(p.each, float64(process.Pause)/1e6)
	}
	p.exchanges, p.errors = p.exchanges+l.exchanges, p.errors+l.failed
	p.wait = append(p.wait, float64(l.longest)/1e6)
	if l.failed > 0 {
		p.name += fmt.Sprintf(" (%v)", l.first)
	}
	return nil
}

// sustained load of exchanges on connections that stay, and on one that does not.
type sustained struct {
	quit chan struct{}
	done sync.WaitGroup
	once sync.Once

	mu                sync.Mutex
	exchanges, failed int
	first             error
	longest           time.Duration
}

func startLoad(port int, open func(int) (*session, error)) *sustained {
	l := &sustained{quit: make(chan struct{})}
	for range sessions {
		l.done.Go(func() {
			s, err := open(port)
			for err == nil && l.goesOn() {
				err = l.timed(s.once)
			}
			if s != nil {
				s.close()
			}
			l.count(err)
		})
	}
	l.done.Go(func() {
		for l.goesOn() {
			l.count(l.timed(func() error { return askOnce(open, port) }))
		}
	})
	return l
}

// goesOn paces the load: it should not be the machine's limit that is measured.
func (l *sustained) goesOn() bool {
	select {
	case <-l.quit:
		return false
	case <-time.After(500 * time.Microsecond):
		return true
	}
}

func (l *sustained) timed(f func() error) error {
	began := time.Now()
	err := f()
	took := time.Since(began)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.exchanges++
	l.longest = max(l.longest, took)
	return err
}

func (l *sustained) count(err error) {
	if err == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failed++
	if l.first == nil {
		l.first = err
	}
}

func (l *sustained) stop() {
	l.once.Do(func() { close(l.quit) })
	l.done.Wait()
}

func tabulatePauses(r *report, all []*pauses) {
	t := r.table("Attaching to what runs", fmt.Sprintf("`whittle attach` to containers under load: %d connections that exchange a request and an answer "+
		"all the time, with 0.5 ms in between, and one that is opened anew each time. Each container is new, and is attached to once; it runs under the engine's default profile before, and is "+
		"enforced at once. How long the container stood still, in ms, and that by the number of its processes, which are all stopped at the same time.", sessions),
		"server", "attaches", "processes", "threads", "a process, median", "p99", "container, median", "most", "the command, median", "longest wait of a client, median",
		"exchanges", "errors", "bar")
	attaches, failed := 0, 0
	for _, p := range all {
		attaches, failed = attaches+p.attaches, failed+p.errors
		middle := median(p.each)
		t.row(p.name, fmt.Sprint(p.attaches), per(p.processes, p.attaches), per(p.threads, p.processes), ms(middle), ms(quantile(p.each, 0.99)),
			ms(median(p.container)), ms(quantile(p.container, 1)), ms(median(p.took)), ms(median(p.wait)), fmt.Sprint(p.exchanges),
			fmt.Sprint(p.errors), bar(middle <= float64(barPause)/1e6, "a process at most %d ms", barPause.Milliseconds()))
	}
	t.note("%d attaches, %d errors of clients. %s", attaches, failed, bar(failed == 0 && attaches >= barAttaches, "no error in %d attaches", barAttaches))
}

// per is how many of one there are for each of the other.
func per(n, of int) string { return fmt.Sprintf("%.1f", float64(n)/float64(max(of, 1))) }
