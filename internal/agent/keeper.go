// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/engine/process"
	"github.com/whittle-sec/whittle/internal/holder"
	"github.com/whittle-sec/whittle/internal/store"
	"github.com/whittle-sec/whittle/internal/workload"
)

// strangerTime is how long a listener waits for the hook that tells of its container, before the container is described
// by what the listener came with.
const strangerTime = 3 * time.Second

// keep in touch with the holder until ctx is done: it hands over the listeners that runtimes bring, and keeps duplicates
// of all of them. When it dies it is started again and given everything.
func (a *Agent) keep(ctx context.Context) {
	var client *holder.Client
	for backoff := 100 * time.Millisecond; ; backoff = min(2*backoff, maxBackoff) {
		if client == nil {
			var err error
			client, err = a.Supervising.Holder(ctx)
			if ctx.Err() != nil {
				closeClient(client)
				return
			}
			if err != nil {
				_ = a.ask(ctx, func(m *model) error { m.problem("holder", err.Error()); return nil })
				wait(ctx, backoff)
				continue
			}
		}
		backoff = 100 * time.Millisecond
		if err := a.ask(ctx, func(m *model) error { return m.connected(client) }); err != nil {
			closeClient(client)
			return
		}
		a.receive(ctx, client)
		// The calls wait in the holder for the next agent.
		_ = a.ask(context.WithoutCancel(ctx), func(m *model) error { m.holder = nil; return nil })
		closeClient(client)
		client = nil
		if ctx.Err() != nil {
			return
		}
	}
}

func closeClient(c *holder.Client) {
	if c != nil {
		_ = c.Close()
	}
}

func closeFD(fd int) {
	if fd > 2 {
		_ = unix.Close(fd)
	}
}

func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// receive what runtimes hand over until the holder is lost.
func (a *Agent) receive(ctx context.Context, client *holder.Client) {
	for {
		k, err := client.Next(ctx)
		if err != nil {
			return
		}
		if a.ask(ctx, func(m *model) error { m.adopt(k); return nil }) != nil {
			closeFD(k.FD)
			return
		}
	}
}

// connected to a holder: it gets what this agent has, and tells what came meanwhile and what it refused.
func (m *model) connected(client *holder.Client) error {
	m.holder = client
	m.problem("holder", "")
	for _, c := range m.containers {
		if c.held == nil {
			continue
		}
		fds, err := c.held.supervisor.Duplicates(c.held.handle)
		for _, fd := range fds {
			_, keepErr := client.Keep(holder.Kept{Container: c.key.id, PID: c.view.PID, FD: fd, Injected: true})
			err = errors.Join(err, keepErr)
			closeFD(fd)
		}
		if err != nil {
			m.problem("holder", fmt.Sprintf("a listener of %s has no duplicate: its held calls fail when the agent dies: %v", c.view.Name, err))
		}
	}
	// Only the first time: later it was this agent whom the holder missed.
	stuck := !m.hadHolder && client.Unclean()
	m.hadHolder = true
	for _, k := range client.Listeners() {
		if stuck {
			m.stuck[k.ID] = true
		}
		m.adopt(k)
	}
	for _, r := range client.Refused() {
		m.event(kindRefused, m.byID(r.Container), fmt.Sprintf("%s: %d times %s was refused between %s and %s: no agent was there to ask",
			r.Container, r.Count, r.Call, r.Since.Format(time.TimeOnly), r.Last.Format(time.TimeOnly)))
	}
	return nil
}

// byID finds a container by its OCI id; nil when there is none.
func (m *model) byID(id string) *tracked {
	for k, c := range m.containers {
		if k.id == id && !c.gone {
			return c
		}
	}
	return nil
}

// adopt a listener. A runtime hands it over after its createRuntime hook has told of the container, but the agent may have
// been restarted since, or the hook may have failed.
func (m *model) adopt(k holder.Kept) {
	c := m.byID(k.Container)
	if c == nil {
		if _, ours := parseToken(k.Metadata); !ours && !k.Injected {
			m.event(kindProblem, nil, fmt.Sprintf("a listener of %s, which is under no profile of this agent, is left alone",
				workload.Printable(k.Container, 80)))
			closeFD(k.FD)
			return
		}
		m.strangers[k.Container] = append(m.strangers[k.Container], k)
		m.agent.start(func() { m.agent.introduce(k) })
		return
	}
	if c.owner != 0 && k.UID != 0 && k.UID != c.owner {
		m.event(kindProblem, c, fmt.Sprintf("user %d handed over a listener of %s, which is not theirs", k.UID, c.view.Name))
		closeFD(k.FD)
		return
	}
	if c.held == nil {
		m.await(c, k)
		return
	}
	m.hear(c, k)
}

// hear a listener of a container with a ward.
func (m *model) hear(c *tracked, k holder.Kept) {
	if err := m.listen(c, k.FD); err != nil {
		m.event(kindProblem, c, err.Error())
		return
	}
	if m.stuck[k.ID] {
		delete(m.stuck, k.ID)
		view := c.view
		m.agent.start(func() { m.agent.kickStuck(context.Background(), c, view) })
	}
	if !c.held.confirmed && !k.Injected {
		c.held.confirmed = true
		m.confirm(c)
		m.event(kindSupervise, c, fmt.Sprintf("%s is supervised (%s) under policy %d: %s", c.view.Name, c.held.ward.Mode(),
			c.held.ward.Orders().Revision, planText(c.held.ward.Orders())))
	}
}

// confirm the record of a container that its engine has started under the filter. One whose profile was exported, and given to
// the engine by a person, has none yet.
func (m *model) confirm(c *tracked) {
	v := store.Supervised{
		Engine: c.engine, ID: c.key.id, Name: c.view.Name, Workload: c.view.WorkloadID, PID: c.view.PID, Started: startOf(c.view.PID),
		Boot: bootID(), How: "start", Mode: c.held.ward.Mode().String(), Revision: c.held.ward.Orders().Revision, Fingerprint: "exported",
	}
	seq := c.held.seq
	m.record(func(ctx context.Context, s Store) (err error) {
		if seq == 0 {
			if seq, err = s.IntendSupervision(ctx, v); err != nil {
				return err
			}
		}
		return s.ConfirmSupervision(ctx, seq, v.PID, v.Started)
	})
}

// await the policy of a container whose listener is here already.
func (m *model) await(c *tracked, k holder.Kept) {
	c.waiting = append(c.waiting, k)
	if len(c.waiting) > 1 {
		return
	}
	view := c.view
	m.agent.start(func() {
		ctx := context.Background()
		o, err := m.agent.loadOrders(ctx, view.WorkloadID)
		how, program := "start", []bpf.RawInstruction(nil)
		if err == nil && k.Injected {
			how = "attach"
			program, err = m.agent.programFor(ctx, site{view: view, orders: o})
		}
		_ = m.agent.ask(context.Background(), func(m *model) error {
			waiting := c.waiting
			c.waiting = nil
			if err != nil && !c.gone {
				// Nobody can say what it may do. Its filter lets hot and harmless calls through; the rest is refused.
				m.event(kindProblem, c, fmt.Sprintf("the held calls of %s are refused: %v", c.view.Name, err))
			}
			if err != nil || c.gone {
				for _, k := range waiting {
					closeFD(k.FD)
				}
				return nil
			}
			if c.held == nil {
				m.supervise(c, o, how, 0)
				c.held.program = program
				if how == "attach" {
					err = m.agent.Observer.Hold(c.id)
				}
			}
			for _, k := range waiting {
				m.hear(c, k)
			}
			return err
		})
	})
}

// introduce a container that no hook has told of, by the listener that came from it.
func (a *Agent) introduce(k holder.Kept) {
	r, err := a.stranger(k)
	if err != nil || k.Received.After(a.started) || a.asks(r.Container.Engine) {
		waited, stop := context.WithTimeout(context.Background(), strangerTime)
		defer stop()
		select {
		case <-waited.Done():
		case <-a.done:
			return
		}
		r, err = a.stranger(k)
	}
	_ = a.ask(context.Background(), func(m *model) error {
		if len(m.strangers[k.Container]) == 0 {
			return nil // it was told of meanwhile
		}
		if err == nil {
			err = m.register(r, k.UID, true)
		}
		if err != nil {
			m.event(kindProblem, nil, fmt.Sprintf("the held calls of %s are refused: %v", workload.Printable(k.Container, 80), err))
			for _, k := range m.strangers[k.Container] {
				closeFD(k.FD)
			}
			delete(m.strangers, k.Container)
		}
		return nil
	})
}

// asks tells whether the agent asks this engine for its containers.
func (a *Agent) asks(name string) bool {
	return slices.ContainsFunc(a.Engines, func(e engine.Engine) bool { return e.Name() == name })
}

// stranger describes a container by its record or, where there is none, by its process.
func (a *Agent) stranger(k holder.Kept) (api.Registration, error) {
	records, err := a.Store.Supervised(context.Background())
	if err != nil {
		return api.Registration{}, err
	}
	t, _ := parseToken(k.Metadata)
	c := engine.Container{State: engine.Running}
	c.Engine, c.ID, c.Name, c.PID = "oci", k.Container, short(k.Container), k.PID
	for _, r := range records {
		if r.ID == k.Container {
			c.Engine, c.Name, t.Workload = r.Engine, r.Name, r.Workload
			if k.Injected && r.PID != 0 {
				c.PID = r.PID
			}
		}
	}
	pol, ok, err := a.Store.Latest(context.Background(), t.Workload)
	if err != nil || !ok {
		return api.Registration{}, errors.Join(err, errNoPolicy)
	}
	c.Workload = pol.Workload
	p, err := process.Open(c.PID)
	if err != nil {
		return api.Registration{}, err
	}
	defer p.Close()
	if c.CgroupID, err = p.CgroupID(); err != nil {
		return api.Registration{}, err
	}
	if c.MountNS, err = p.MountNS(); err != nil {
		return api.Registration{}, err
	}
	return api.Registration{Container: c}, p.Alive()
}
