// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/engine/process"
	"github.com/whittle-sec/whittle/internal/kernel"
	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/internal/workload"
)

// maxContainers bounds the model: more than any node runs, less than hurts.
const maxContainers = 20_000

// claim checks that a container is this user's own, and puts what the kernel says in the place of what the user says:
// whoever may name any pid, cgroup or mount namespace could have the rest of the host taken for a container.
//
// The mount namespace is the key then. The cgroup need not be the container's own (it may be that of the session, or of a
// service that runs programs of other users, too).
func claim(c *engine.Container, uid uint32) error {
	if c.PID <= 0 {
		return fmt.Errorf("%w: a container needs a pid", api.ErrInvalid)
	}
	p, err := process.Open(c.PID)
	if errors.Is(err, process.ErrGone) {
		return fmt.Errorf("%w: %w", api.ErrInvalid, err)
	}
	if err != nil {
		return err
	}
	defer p.Close()
	owner, err := p.Owner()
	if err != nil { // who cannot be told is not this user
		return fmt.Errorf("%w: %w", api.ErrForbidden, err)
	}
	if owner != uid {
		return fmt.Errorf("%w: process %d is not in a container of user %d", api.ErrForbidden, c.PID, uid)
	}
	c.CgroupID = 0
	if c.MountNS, err = p.MountNS(); err != nil {
		return err
	}
	return p.Alive()
}

// register a container and have it observed. owner is the user it belongs to; late says that it was already running.
func (m *model) register(r api.Registration, owner uint32, late bool) error {
	rc := &r.Container
	if t := m.agent.twins.whose(rc.ID); t != nil {
		rc.Workload = t.workload // it goes by production's policy
	}
	k := key{rc.Engine, rc.ID}
	if old := m.containers[k]; old != nil && !old.gone {
		if old.reg.Container.PID == rc.PID {
			m.rename(old, rc.Name)
			m.relabel(old, rc.Labels) // the hook was faster than the engine's event, and knows no labels
			return nil
		}
		if owner != 0 && old.owner != owner {
			return fmt.Errorf("%w: container %s is not one of user %d", api.ErrForbidden, old.view.Name, owner)
		}
		m.finish(old, ending{ended: true}) // it was restarted, and its end went unnoticed
	}
	switch {
	case rc.ID == "" || rc.PID <= 0:
		return fmt.Errorf("%w: a container needs an id and a pid", api.ErrInvalid)
	case len(m.containers) >= maxContainers:
		return fmt.Errorf("more than %d containers", maxContainers)
	case m.agent.self.is(*rc):
		return nil
	}
	if m.isOff(r) {
		return nil
	}
	c := &tracked{key: k, reg: r, owner: owner, counts: map[refusalKey]*refusal{}, oracleOf: m.agent.twins.whose(rc.ID)}
	c.view = api.Container{
		Container: rc.Container, WorkloadID: rc.Workload.ID(), WorkloadName: rc.Workload.Name(),
		Mode: api.Learning, Since: m.agent.Now(), Late: late,
	}
	c.view.Name = workload.Printable(rc.Name, 64)
	exit, err := watchExit(rc.PID)
	if errors.Is(err, process.ErrGone) {
		m.event(kindProblem, c, c.view.Name+" ended before it could be observed")
		return nil
	}
	if err != nil {
		return err
	}
	c.exit = exit
	if err := m.arm(c, late); err != nil {
		c.view.Mode, c.view.Note = api.Unseen, err.Error()
		m.event(kindProblem, c, fmt.Sprintf("%s cannot be observed: %v", c.view.Name, err))
	}
	m.containers[k] = c
	m.agent.start(func() { m.agent.awaitExit(exit, k) })
	m.take(c)
	c.reg.Profile = nil // it is read, and up to megabytes long
	m.lastStart = m.agent.Now()
	return nil
}

// isOff tells whether nothing is to be done with a container. One that runs under a filter of ours is taken all the same: its
// held calls have to be let through.
func (m *model) isOff(r api.Registration) bool {
	c := r.Container
	if m.modeOf(c.Workload.ID()).now != api.ModeOff && ownMode(c.Labels) != api.ModeOff {
		return false
	}
	_, ours := m.agent.tokenOf(r.Profile)
	_, recorded := m.records[key{c.Engine, c.ID}]
	return !ours && !recorded && len(m.strangers[c.ID]) == 0
}

// take a registered container under supervision as far as its profile, its mode and the listeners that are here say so.
func (m *model) take(c *tracked) {
	if m.agent.Supervising == nil {
		return
	}
	strangers := m.strangers[c.key.id]
	delete(m.strangers, c.key.id)
	t, ours := m.agent.tokenOf(c.reg.Profile)
	c.prepared = ours
	if o := m.orders[c.view.WorkloadID]; ours && o != nil && c.held == nil && o.Revision == t.Revision {
		m.supervise(c, o, "start", t.Seq)
	}
	for _, k := range strangers {
		m.adopt(k)
	}
	if ours || len(strangers) > 0 || c.view.Mode == api.Enforced || m.wasHeld(c) {
		return // what was held before is reconciled as soon as the holder has told what it keeps
	}
	if c.oracleOf != nil {
		return // the driver of its loop sees that it does not live
	}
	if mode := m.modeFor(c); mode == api.ModeShadow || mode == api.ModeEnforce {
		m.bringUnder(c, false) // it was started without us, or before its workload had settled
	}
}

// rename a container that has another name now, as the successor in a renewal gets its predecessor's.
func (m *model) rename(c *tracked, name string) {
	name = workload.Printable(name, 64)
	if name == "" || name == c.view.Name {
		return
	}
	m.event(kindStart, c, fmt.Sprintf("%s is called %s now", c.view.Name, name))
	c.view.Name = name
	if c.held != nil {
		m.agent.desk.rename(c.held.handle, name)
	}
}

// relabel a container whose labels come after it: Podman tells a hook none.
func (m *model) relabel(c *tracked, labels map[string]string) {
	before := ownMode(c.reg.Container.Labels)
	if len(labels) > 0 {
		c.reg.Container.Labels = labels
	}
	if now := ownMode(labels); now == "" || now == before {
		return
	}
	m.event(kindMode, c, fmt.Sprintf("%s: %s, by its label", c.view.Name, ownMode(labels)))
	if ownMode(labels) == api.ModeOff && c.held == nil {
		c.learns = false // and nothing of it is kept
		m.finish(c, ending{})
		return
	}
	m.applyMode(c)
}

// arm the observer: exported profiles are watched for what they refuse, everything else is learned from.
func (m *model) arm(c *tracked, late bool) error {
	target := kernel.Target{
		CgroupID: c.view.CgroupID, MountNS: c.view.MountNS, InitPID: c.view.PID,
		Late: late, StopSignal: c.reg.Container.StopSignal, Filtered: filtered(c.reg), NameOf: nameOf(c.view.Workload.Command),
	}
	if _, ours := m.agent.tokenOf(c.reg.Profile); ours || len(m.strangers[c.key.id]) > 0 || m.wasHeld(c) {
		return m.armHeld(c, target, late)
	}
	how := ""
	if late {
		how = ", already running: what it did before is unknown"
	}
	allowed, enforced, err := m.enforced(c.reg.Profile)
	if err != nil {
		// A profile that cannot be read may be anybody's: the container is learned from, like every other.
		m.event(kindProblem, c, fmt.Sprintf("the seccomp profile of %s: %v", c.view.Name, err))
	}
	what := " is learned from"
	if enforced {
		what = " is enforced"
		c.view.Mode = api.Enforced
		c.id, err = m.agent.Observer.Watch(target, allowed)
	} else {
		c.id, err = m.agent.Observer.Observe(target)
		c.learns = err == nil
	}
	if err != nil {
		return err
	}
	m.event(kindStart, c, c.view.Name+what+how)
	m.observed[c.id] = c
	return nil
}

// wasHeld tells whether an earlier agent supervised this container, by the record.
func (m *model) wasHeld(c *tracked) bool {
	r, ok := m.records[c.key]
	return ok && r.PID == c.view.PID && r.Started == startOf(r.PID)
}

// armHeld observes a container whose calls are held, until it has booted: that is when its boot-only calls end. One that
// was running before is only followed: what is seen of it would be a piece.
func (m *model) armHeld(c *tracked, target kernel.Target, late bool) (err error) {
	target.Filtered, target.Held = false, true
	how := "is learned from while it boots, under its policy"
	switch {
	case late:
		how = "is supervised, and was already running"
		c.id, err = m.agent.Observer.Follow(target)
	case c.oracleOf != nil, m.agent.loops(c.view.WorkloadID) && m.modeFor(c) == api.ModeEnforce:
		how = "is supervised; what it is taught, its oracle teaches it"
		if c.oracleOf != nil {
			how = "is the oracle, under production's policy"
			c.view.Note = "the oracle of " + c.view.WorkloadName + ", in production's place"
		}
		c.id, err = m.agent.Observer.Follow(target)
	default:
		c.id, err = m.agent.Observer.Observe(target)
		c.learns = err == nil
	}
	if err != nil {
		return err
	}
	m.event(kindStart, c, c.view.Name+" "+how)
	m.observed[c.id] = c
	if late && processAge(c.view.PID) > bootTime {
		return m.agent.Observer.SetStage(c.id, observe.StageRun)
	}
	return nil
}

// enforced tells whether Whittle made this profile, and what it lets through.
func (m *model) enforced(profile []byte) (kernel.Allowed, bool, error) {
	if len(profile) == 0 {
		return kernel.Allowed{}, false, nil
	}
	fingerprint, allowed, err := profileOf(profile)
	if err != nil {
		return kernel.Allowed{}, false, err
	}
	_, ours := m.exported[fingerprint]
	return allowed, ours, nil
}

// filtered tells whether somebody else's filter may answer calls before they are seen. Unknown counts as yes.
func filtered(r api.Registration) bool {
	return len(r.Profile) > 0 || r.Container.Seccomp != engine.SeccompUnconfined
}
