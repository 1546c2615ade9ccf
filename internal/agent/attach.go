// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/net/bpf"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/engine/process"
	"github.com/whittle-sec/whittle/internal/filter"
	"github.com/whittle-sec/whittle/internal/hint"
	"github.com/whittle-sec/whittle/internal/holder"
	"github.com/whittle-sec/whittle/internal/inject"
	"github.com/whittle-sec/whittle/internal/kernel"
	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/internal/plan"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/store"
	"github.com/whittle-sec/whittle/internal/syscalls"
	"github.com/whittle-sec/whittle/internal/ward"
	"github.com/whittle-sec/whittle/internal/workload"
)

var (
	_ api.Attacher = (*Agent)(nil)
	_ api.Sealer   = (*Agent)(nil)
)

// attachTime bounds one injection: fork storms converge in half a second, a thread in D state is waited for.
const attachTime = 30 * time.Second

// site is what an injection needs to know of a container.
type site struct {
	c       *tracked
	view    api.Container
	request inject.Request
	orders  *ward.Orders
	held    bool // its calls are held
	deaf    bool // they are, and nobody reads its listeners: they were lost

	program []bpf.RawInstruction // that was injected before
}

// Attach to a running container.
func (a *Agent) Attach(ctx context.Context, by api.Peer, r api.AttachRequest) (api.AttachResult, error) {
	if a.Supervising == nil {
		return api.AttachResult{}, fmt.Errorf("%w: this agent does not supervise", api.ErrInvalid)
	}
	s, err := a.siteOf(ctx, r.Container, r.PID)
	if err != nil {
		return api.AttachResult{}, err
	}
	rules, err := a.rulesFor(ctx, s)
	if err != nil {
		return api.AttachResult{}, err
	}
	if s.request.Program, err = filter.Compile(rules); err != nil {
		return api.AttachResult{}, err
	}
	s.request.Listener, s.request.Skip = true, !s.deaf
	if s.held && !s.deaf && s.program != nil {
		s.request.Program = s.program // one listener per process: only those without the filter get it
	}
	out := api.AttachResult{Container: s.view.Name, Workload: s.view.WorkloadName, DryRun: r.DryRun, Mode: r.Mode}
	out.Open, out.Held = openAndHeld(s.orders, policy.Run)
	if p := s.orders.Policy; !p.Complete {
		out.Warnings = append(out.Warnings, "its policy is "+wholeness(p))
	}
	if r.DryRun {
		return a.survey(s, rules, out)
	}
	if s.held && !s.deaf && s.program == nil { // whatever runs in it was started under its filter
		out.Complete, out.Warnings = true, append(out.Warnings, s.view.Name+" is supervised since its start")
	} else {
		out, err = a.attach(ctx, s, out, "attach")
	}
	if err != nil || r.Mode == "" {
		return out, err
	}
	// After it: setting the mode first would have the agent attach by itself at the same time.
	_, err = a.SetMode(ctx, by, api.ModeChange{Workload: s.view.WorkloadID, Mode: r.Mode, By: by.Name()})
	return out, err
}

// siteOf a container by its reference or by one of its processes.
func (a *Agent) siteOf(ctx context.Context, ref string, pid int) (s site, err error) {
	if pid > 0 {
		if err := a.introducePID(ctx, pid); err != nil {
			return s, err
		}
	}
	err = a.ask(ctx, func(m *model) error {
		c, err := m.find(ref, pid)
		if err != nil {
			return err
		}
		s.c, s.view, s.held = c, c.view, c.held != nil
		if s.held {
			s.program = c.held.program
		}
		s.deaf = c.held == nil && m.wasHeld(c) || c.held != nil && c.held.supervisor.Listeners(c.held.handle) == 0
		return nil
	})
	if err != nil {
		return s, err
	}
	if s.request, err = requestFor(s.view); err != nil {
		return s, err
	}
	s.orders, err = a.loadOrders(ctx, s.view.WorkloadID)
	if errors.Is(err, errNoPolicy) {
		err = hint.Add(fmt.Errorf("%w: %s: %w", api.ErrNotFound, s.view.Name, err),
			"it is learned from while it runs: whittle status shows when it has settled; policies: whittle policy list")
	}
	return s, err
}

// find a container by its name, its ID or the beginning of it, or by its first process or its cgroup.
func (m *model) find(ref string, pid int) (*tracked, error) {
	var found []*tracked
	for _, c := range m.containers {
		switch {
		case c.gone:
		case pid > 0 && m.contains(c, pid), ref != "" && (c.view.Name == ref || c.key.id == ref):
			return c, nil
		case ref != "" && len(ref) >= 4 && strings.HasPrefix(c.key.id, ref):
			found = append(found, c)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return nil, fmt.Errorf("%w: %q is the beginning of %d containers' ids", api.ErrInvalid, ref, len(found))
	case pid > 0:
		return nil, fmt.Errorf("%w: process %d is in no container", api.ErrNotFound, pid)
	}
	return nil, hint.Add(fmt.Errorf("%w: no container %q runs", api.ErrNotFound, ref), "whittle status lists those that the agent knows")
}

// contains tells whether a process is in the container.
func (m *model) contains(c *tracked, pid int) bool {
	if c.view.PID == pid {
		return true
	}
	p, err := process.Open(pid)
	if err != nil {
		return false
	}
	defer p.Close()
	if c.view.CgroupID > 1 {
		id, err := p.CgroupID()
		return err == nil && id == c.view.CgroupID
	}
	ns, err := p.MountNS()
	return err == nil && ns != 0 && ns == c.view.MountNS
}

// requestFor a container's processes.
func requestFor(c api.Container) (inject.Request, error) {
	p, err := process.Open(c.PID)
	if err != nil {
		return inject.Request{}, err
	}
	defer p.Close()
	r := inject.Request{PIDs: []int{c.PID}, Starts: []uint64{startOf(c.PID)}, MountNS: c.MountNS}
	if c.CgroupID > 1 {
		if r.Cgroup, err = p.CgroupDir(); err != nil {
			return inject.Request{}, err
		}
		r.MountNS = 0 // a program of the container may have made itself another; the cgroup it cannot leave
	}
	return r, p.Alive()
}

// attach the filter of a plan, with the record made before and confirmed after.
func (a *Agent) attach(ctx context.Context, s site, out api.AttachResult, how string) (api.AttachResult, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), attachTime) // half of it would be worse than all
	defer cancel()
	seq, err := a.Store.IntendSupervision(ctx, recordOf(s, how))
	if err != nil {
		return out, fmt.Errorf("nothing was changed: %w", err)
	}
	result, err := a.inject(ctx, s.c, s.request)
	fill(&out, result)
	if out.Listeners == 0 && (how == "attach" || err != nil) { // nothing that was intended is in the kernel
		if err != nil {
			err = fmt.Errorf("attach to %s: %w", s.view.Name, err)
		}
		out.Complete = out.Complete && s.held
		return out, errors.Join(err, a.Store.AbandonSupervision(ctx, seq))
	}
	if err != nil { // somebody has to read the listeners that there are, or what is held waits for ever
		out.Complete, out.Warnings = false, append(out.Warnings, err.Error())
	}
	err = a.ask(ctx, func(m *model) error {
		err := m.attached(s, result, how, seq)
		if s.c.held != nil && out.Mode == "" {
			out.Mode = api.WorkloadMode(s.c.held.ward.Mode().String())
		}
		return err
	})
	if err != nil {
		result.Close()
	}
	return out, err
}

// rulesFor the filter that a container gets. Filters stack, and a hold wins over an allow: what an older filter of ours
// holds must be held by the newer one too, because nobody reads the older one's listener any more.
func (a *Agent) rulesFor(ctx context.Context, s site) (*filter.Rules, error) {
	rules := s.orders.Plan.Running()
	records, err := a.Store.Supervised(ctx)
	if err != nil {
		return nil, fmt.Errorf("read which filters %s has: %w", s.view.Name, err)
	}
	for _, r := range records {
		if r.Engine != s.view.Engine || r.ID != s.view.ID || r.How == "seal" || r.How == "narrow" || r.Boot != bootID() || r.PID != 0 && r.PID != s.view.PID {
			continue
		}
		p, err := a.Store.PolicyVersion(ctx, r.Workload, r.Revision)
		if err != nil {
			return nil, fmt.Errorf("read policy %d, which %s runs under: %w", r.Revision, s.view.Name, err)
		}
		older := ward.OrdersOf(p, r.Revision, planOptions()).Plan
		if r.How == "start" {
			rules = plan.Above(older.Booting(), rules)
		} else {
			rules = plan.Above(older.Running(), rules)
		}
	}
	return rules, nil
}

func (a *Agent) programFor(ctx context.Context, s site) ([]bpf.RawInstruction, error) {
	rules, err := a.rulesFor(ctx, s)
	if err != nil {
		return nil, err
	}
	return filter.Compile(rules)
}

// inject with the observer looking away: what the injector has a process call is not the container's.
func (a *Agent) inject(ctx context.Context, c *tracked, r inject.Request) (inject.Result, error) {
	tell := func(now bool) error {
		return a.ask(context.WithoutCancel(ctx), func(m *model) error {
			if c.id == 0 || c.gone {
				return nil
			}
			return m.agent.Observer.Injecting(c.id, now)
		})
	}
	if err := tell(true); err != nil {
		return inject.Result{}, err
	}
	result, err := inject.Run(ctx, a.Supervising.Exe, r)
	if tellErr := tell(false); err == nil && tellErr != nil {
		result.Problems = append(result.Problems, tellErr.Error())
	}
	return result, err
}

// sideEffect of an attach that nobody asked for: the kernel takes a filter from a process without privileges only with
// no_new_privs, and then no program that it executes gains privileges by setuid bits or file capabilities. A service that
// executes programs while it runs might need that.
func (s site) sideEffect() error {
	executes := false
	for abi, calls := range s.orders.Policy.ABIs {
		for _, name := range []string{"execve", "execveat"} {
			nr, ok := syscalls.Number(abi, name)
			executes = executes || ok && (calls.Phases[policy.Run].Has(nr) || calls.Phases[policy.Reload].Has(nr) || calls.Phases[policy.Stop].Has(nr))
		}
	}
	if !executes {
		return nil
	}
	report, err := inject.Survey(s.request, func(syscalls.Call) bool { return true })
	if err != nil {
		return err
	}
	for _, p := range report.Processes {
		if p.SetsNoNewPrivs {
			return fmt.Errorf("it executes programs while it runs, and attaching would set no_new_privs, with which none of them gains "+
				"privileges; if that does not matter: whittle attach %s", s.view.Name)
		}
	}
	return nil
}

func recordOf(s site, how string) store.Supervised {
	return store.Supervised{
		Engine: s.view.Engine, ID: s.view.ID, Name: s.view.Name, Workload: s.view.WorkloadID, PID: s.view.PID,
		Started: startOf(s.view.PID), Boot: bootID(), How: how, Revision: s.orders.Revision,
		Fingerprint: fingerprint(s.request.Program),
	}
}

// fill in what was done to each process.
func fill(out *api.AttachResult, r inject.Result) {
	for _, p := range r.Processes {
		out.Processes = append(out.Processes, api.AttachedProcess{
			PID: p.PID, Comm: commOf(p.PID), Threads: p.Threads, How: p.How, NoNewPrivileges: p.NoNewPrivs, Pause: p.Pause, Problem: p.Err,
		})
		if p.Listener >= 0 {
			out.Listeners++
		}
		out.Listeners += len(p.More)
	}
	out.Paused, out.Complete = r.Frozen, r.Complete
	out.Warnings = append(out.Warnings, r.Problems...)
}

// attached takes over what an injection brought.
func (m *model) attached(s site, r inject.Result, how string, seq int64) error {
	c := s.c
	if c.gone || m.containers[c.key] != c {
		return fmt.Errorf("%w: %s has ended meanwhile", api.ErrNotFound, s.view.Name)
	}
	switch how {
	case "seal":
		return m.sealed(c, s, seq)
	case "narrow":
		pid, started := c.view.PID, startOf(c.view.PID)
		m.record(func(ctx context.Context, st Store) error { return st.ConfirmSupervision(ctx, seq, pid, started) })
		return nil
	}
	if c.id == 0 {
		if err := m.follow(c); err != nil {
			return err
		}
	}
	if c.held == nil {
		m.supervise(c, s.orders, how, seq)
		if m.modeFor(c) == api.ModeLearn {
			c.held.ward.SetMode(ward.Shadow) // it was asked for: nothing is refused before it is said so
		}
	}
	c.held.ward.SetOrders(s.orders)
	if c.view.Phase != policy.Boot || c.view.Late && processAge(c.view.PID) > bootTime {
		if stage, ok := m.agent.Observer.Stage(c.id); ok && stage == observe.StageBoot {
			if err := m.agent.Observer.SetStage(c.id, observe.StageRun); err != nil {
				return err
			}
		}
	}
	c.held.program = s.request.Program
	errs := []error{m.agent.Observer.Hold(c.id)}
	for _, p := range r.Processes {
		errs = append(errs, m.keepListeners(c, p))
	}
	c.held.confirmed = true
	pid, started := c.view.PID, startOf(c.view.PID)
	m.record(func(ctx context.Context, s Store) error { return s.ConfirmSupervision(ctx, seq, pid, started) })
	m.event(kindAttach, c, fmt.Sprintf("%s is supervised (%s): its %d processes have the filter of policy %d, %s, stopped for %s", c.view.Name,
		c.held.ward.Mode(), len(r.Processes), s.orders.Revision, planText(s.orders), r.Frozen.Round(10*time.Microsecond)))
	m.agent.start(func() { m.agent.attest(context.Background(), c) })
	return errors.Join(errs...)
}

// hold the calls that come to a listener: the supervisor answers them, and a duplicate goes to the holder.
func (m *model) hold(c *tracked, pid, fd int) (err error) {
	if m.holder != nil {
		_, err = m.holder.Keep(holder.Kept{Container: c.key.id, PID: pid, FD: fd, Injected: true})
	}
	return errors.Join(err, m.listen(c, fd))
}

// follow a container that is not observed (any more).
func (m *model) follow(c *tracked) (err error) {
	c.id, err = m.agent.Observer.Follow(kernel.Target{
		CgroupID: c.view.CgroupID, MountNS: c.view.MountNS, InitPID: c.view.PID, Late: true, Held: true,
		StopSignal: c.reg.Container.StopSignal, NameOf: nameOf(c.view.Workload.Command),
	})
	if err != nil {
		return err
	}
	m.observed[c.id] = c
	c.learns = false
	if c.held != nil {
		c.held.ward.SetObserved(c.id)
	}
	return m.agent.Observer.SetStage(c.id, observe.StageRun)
}

// bringUnder attaches to a container whose mode says that its calls are to be held; again, where the listeners of a filter that
// it has are lost.
func (m *model) bringUnder(c *tracked, again bool) {
	if m.agent.Supervising == nil || c.attaching || c.view.PID == 0 {
		return
	}
	c.attaching = true
	view := c.view
	m.agent.start(func() {
		out, err := m.agent.attachTo(context.Background(), c, view, again)
		_ = m.agent.ask(context.Background(), func(m *model) error {
			c.attaching = false
			switch {
			case c.gone:
			case err != nil:
				m.event(kindProblem, c, fmt.Sprintf("%s cannot be supervised while it runs: %v; the next start is", c.view.Name, err))
			case !out.Complete:
				m.event(kindProblem, c, fmt.Sprintf("%s is supervised in part: %s", c.view.Name, strings.Join(out.Warnings, "; ")))
			}
			return nil
		})
	})
}

func (a *Agent) attachTo(ctx context.Context, c *tracked, view api.Container, again bool) (out api.AttachResult, err error) {
	s := site{c: c, view: view, held: false}
	if s.orders, err = a.loadOrders(ctx, view.WorkloadID); err != nil {
		return out, err
	}
	if s.request, err = requestFor(view); err != nil {
		return out, err
	}
	s.request.Listener, s.request.Skip = true, !again
	if err := s.sideEffect(); err != nil && !again {
		return out, err
	}
	if s.request.Program, err = a.programFor(ctx, s); err != nil {
		return out, err
	}
	return a.attach(ctx, s, out, "attach")
}

// survey says what an injection would do.
func (a *Agent) survey(s site, rules *filter.Rules, out api.AttachResult) (api.AttachResult, error) {
	report, err := inject.Survey(s.request, func(call syscalls.Call) bool {
		t := rules.Tables[call.ABI]
		return t != nil && call.Nr < syscalls.MaxNr && t.Actions[call.Nr] != filter.Errno(uint16(policy.ENOSYS))
	})
	if err != nil {
		return out, err
	}
	out.Complete = true
	for _, p := range report.Processes {
		ap := api.AttachedProcess{
			PID: p.PID, Comm: workload.Printable(p.Comm, 16), Threads: len(p.Threads), How: p.How, NoNewPrivileges: p.SetsNoNewPrivs,
		}
		if !p.Works {
			ap.Problem, out.Complete = p.Problem, false
		}
		for _, t := range p.Threads {
			if t.Refused {
				out.Warnings = append(out.Warnings, fmt.Sprintf("thread %d of %s waits in %s, which the filter would refuse when it goes on",
					t.TID, ap.Comm, t.Call))
			}
		}
		out.Processes = append(out.Processes, ap)
	}
	out.Warnings = append(out.Warnings, report.Problems...)
	return out, nil
}

// maxCommandLine of a process that no engine tells of, in bytes.
const maxCommandLine = 4096

// introducePID registers the process as a container of its own, unless it is in one that is known. Its workload is its
// program and its arguments, as of a bundle that no engine made.
func (a *Agent) introducePID(ctx context.Context, pid int) error {
	known := false
	err := a.ask(ctx, func(m *model) error {
		_, err := m.find("", pid)
		known = err == nil
		return nil
	})
	if err != nil || known {
		return err
	}
	p, err := process.Open(pid)
	if err != nil {
		return fmt.Errorf("%w: %w", api.ErrNotFound, err)
	}
	defer p.Close()
	var r api.Registration
	c := &r.Container
	c.Engine, c.ID, c.PID, c.Name = "process", fmt.Sprintf("%d-%d", pid, startOf(pid)), pid, commOf(pid)
	line, err := readSome(fmt.Sprintf("/proc/%d/cmdline", pid), maxCommandLine)
	if err != nil || len(line) == 0 {
		return fmt.Errorf("%w: process %d has no command line: it is a kernel thread or ends", api.ErrInvalid, pid)
	}
	c.Workload.Command = strings.Split(strings.TrimSuffix(string(line), "\x00"), "\x00")
	c.Workload.Image = workload.Printable(path.Base(c.Workload.Command[0]), 200)
	if c.MountNS, err = p.MountNS(); err != nil {
		return err
	}
	if c.CgroupID, err = p.CgroupID(); err != nil {
		return err
	}
	if c.MountNS == a.self.mountNS {
		return hint.Add(fmt.Errorf("%w: process %d is in no container: it shares this host's mounts, and its cgroup may hold other programs", api.ErrInvalid, pid),
			"supervise a command of the host with: whittle run --policy FILE -- COMMAND")
	}
	if err := p.Alive(); err != nil {
		return err
	}
	return a.ask(ctx, func(m *model) error { return m.register(r, 0, true) })
}

func readSome(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit))
}
