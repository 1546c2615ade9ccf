// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/net/bpf"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/holder"
	"github.com/whittle-sec/whittle/internal/plan"
	"github.com/whittle-sec/whittle/internal/supervise"
	"github.com/whittle-sec/whittle/internal/ward"
)

// Supervising is what an agent needs to hold calls. Without it the agent learns and reports, and that is all.
type Supervising struct {
	Supervisor *supervise.Supervisor
	// Rootless answers for the containers of other users than root: whoever keeps a duplicate of a listener can make a
	// reader of it wait, and theirs must not be the workers that everybody else's calls wait for.
	Rootless   *supervise.Supervisor
	Holder     func(context.Context) (*holder.Client, error) // connects to the holder, or starts one
	Exe        string                                        // this program: filters are injected by a process of its own
	Listener   string                                        // the socket that runtimes hand listeners to
	Default    api.WorkloadMode                              // of workloads that nobody set a mode for
	ShadowTime time.Duration                                 // without a would-deny, before a workload is enforced by itself
}

// beforeAnyoneAnswers are calls that runc makes between loading the filter and telling which descriptor the listener is:
// held, they would wait for somebody who cannot come yet. It is a Go program, whose scheduler calls what it likes.
var beforeAnyoneAnswers = []string{
	"write", "read", "close", "futex", "sched_yield", "nanosleep", "clock_nanosleep", "rt_sigreturn", "rt_sigprocmask", "getpid", "gettid",
	"epoll_pwait", "mmap", "munmap", "madvise", "sigaltstack",
}

// planOptions are the same for every container of this agent, so that a plan can be shared.
func planOptions() plan.Options {
	o := plan.Default()
	o.AlwaysOpen, o.Floor = beforeAnyoneAnswers, withoutAsking()
	return o
}

// errNoPolicy is for workloads that were never learned from.
var errNoPolicy = errors.New("nothing was learned of it yet")

// loadOrders makes the newest policy of a workload into what its wards go by.
func (a *Agent) loadOrders(ctx context.Context, id string) (*ward.Orders, error) {
	p, revision, ok, err := a.Store.Current(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("read the policy: %w", err)
	}
	if !ok {
		return nil, errNoPolicy
	}
	return a.orders.of(orderKey{workload: id}, p, revision), nil
}

// token is the listenerMetadata of the profiles that the agent hands out. Whatever comes back with a listener is only as
// trustworthy as the runtime's user: it is looked up, never believed.
type token struct {
	Whittle  int    `json:"whittle"` // version of this format
	Workload string `json:"workload"`
	Revision int    `json:"revision"`
	Seq      int64  `json:"seq"` // of the record
}

const tokenVersion = 1

func parseToken(metadata string) (t token, ok bool) {
	if len(metadata) > 1024 || json.Unmarshal([]byte(metadata), &t) != nil {
		return token{}, false
	}
	return t, t.Whittle == tokenVersion && t.Workload != ""
}

// tokenOf a container's seccomp section, if its calls are held for this agent.
func (a *Agent) tokenOf(profile []byte) (token, bool) {
	if a.Supervising == nil || len(profile) == 0 {
		return token{}, false
	}
	var section struct {
		ListenerPath     string `json:"listenerPath"`
		ListenerMetadata string `json:"listenerMetadata"`
	}
	if json.Unmarshal(profile, &section) != nil || section.ListenerPath != a.Supervising.Listener {
		return token{}, false
	}
	return parseToken(section.ListenerMetadata)
}

// held is a supervised container's part of tracked.
type held struct {
	ward   *ward.Ward
	handle supervise.Container

	supervisor *supervise.Supervisor

	how    string // start, attach
	since  time.Time
	seq    int64 // of the record; 0: none
	phased time.Time
	done   chan struct{} // closed when the container is no longer supervised
	attest attestation
	rates  rates

	wouldDeny uint64               // as far as its workload's mode knows of it
	home      *home                // nil: no panel
	program   []bpf.RawInstruction // that was injected; nil when its engine started it under the filter

	confirmed bool // the record says that the filter is in the kernel
	narrowed  bool // what only its boot needs too often to be held is refused by a filter of its own
}

// supervise makes a ward of a container. What is held waits until its listeners come to the supervisor.
func (m *model) supervise(c *tracked, o *ward.Orders, how string, seq int64) {
	m.lastHandle++
	c.held = &held{
		handle: m.lastHandle, how: how, since: m.agent.Now(), seq: seq, phased: m.agent.Now(), done: make(chan struct{}),
		ward: ward.New(m.agent.Observer, c.id, c.view.PID, o, m.wardMode(c), m.agent.Now),
	}
	h := c.held
	if how == "start" {
		h.ward.StartedUnder()
	}
	if c.view.Late {
		c.view.Phase = h.ward.Phase() // it was in it before
	}
	h.supervisor = m.agent.Supervising.Supervisor
	if c.owner != 0 {
		h.supervisor = m.agent.Supervising.Rootless
	}
	h.ward.Consults(m.court(c, h.supervisor))
	if c.oracleOf == nil {
		m.agent.fleet.join(c.view.WorkloadID, c.key)
	}
	m.agent.start(func() { m.agent.awaitHeld(c, h) })
}

// wardMode of a container, by its label or its workload's mode.
func (m *model) wardMode(c *tracked) ward.Mode {
	if c.oracleOf != nil {
		return ward.Enforce
	}
	switch m.modeFor(c) {
	case api.ModeEnforce:
		return ward.Enforce
	case api.ModeShadow:
		return ward.Shadow
	}
	return ward.Off
}

// listen hands a listener of a supervised container to the supervisor.
func (m *model) listen(c *tracked, fd int) error {
	if err := c.held.supervisor.Add(c.held.handle, fd, c.held.ward.Judge); err != nil {
		return fmt.Errorf("supervise %s: %w", c.view.Name, err)
	}
	return nil
}

// endHeld when the container is gone, or nobody holds its calls any more. The record of one that goes on stays: it runs under
// its filter, and the next agent has to know.
func (m *model) endHeld(c *tracked, ended bool) {
	if c.held != nil {
		m.tellHeld(c)
		m.tellJudged(c)
		c.held.supervisor.Remove(c.held.handle)
		m.agent.desk.drop(c.held.handle)
		m.agent.dropLooping(c)
		m.agent.fleet.leave(c.view.WorkloadID, c.key)
		close(c.held.done)
	}
	if ended && (c.prepared || c.held != nil) {
		engine, id := c.engine, c.key.id
		m.record(func(ctx context.Context, s Store) error { return s.EndSupervision(ctx, engine, id) })
	}
	c.held = nil
}

// awaitHeld tells the owner whenever the container's tally has something new.
func (a *Agent) awaitHeld(c *tracked, h *held) {
	for {
		select {
		case <-h.done:
			return
		case <-a.done:
			return
		case <-h.ward.Tally.Wake():
		case <-h.ward.Docket.Wake():
		}
		if a.ask(context.Background(), func(m *model) error {
			if c.held == h {
				m.tellJudged(c)
				m.tellHeld(c)
			}
			return nil
		}) != nil {
			return
		}
	}
}

// record something in the store in its turn, without the owner waiting for the disk.
func (m *model) record(f func(context.Context, Store) error) {
	m.queue = append(m.queue, recordJob{f})
}

type recordJob struct {
	f func(context.Context, Store) error
}

func (j recordJob) do(ctx context.Context, s *scholar) func(*model) {
	if err := j.f(ctx, s.agent.Store); err != nil {
		s.failed("record what is supervised", err)
	}
	return nil
}

// fix is what to type so that a refused call is allowed; phase may be "".
func fix(workload, call, phase string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./:@", r)
	}
	if strings.ContainsFunc(workload, func(r rune) bool { return !plain(r) }) {
		workload = "'" + strings.ReplaceAll(workload, "'", `'\''`) + "'"
	}
	text := "whittle policy allow " + workload + " " + call
	if phase != "" {
		text += " --phase " + phase
	}
	return text
}
