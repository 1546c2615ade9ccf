// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/whittle-sec/whittle/internal/observe"
)

// Follow a container whose calls a supervisor answers: who its tasks are (lane, role, birth) and which stage it is in
// stays known, and nothing is recorded. It takes the programs for rare events only: no task pays for its calls.
func (o *Observer) Follow(t Target) (ID, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	c, err := o.add(t, nil, true)
	if err != nil {
		return 0, fmt.Errorf("follow a container: %w", err)
	}
	return c.id, nil
}

// Settle ends the learning from a container and goes on following it, so that its tasks keep their lanes and roles. The
// trace is what was learned.
func (o *Observer) Settle(id ID) (observe.Trace, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	c := o.containers[id]
	if c == nil {
		return observe.Trace{}, fmt.Errorf("settle container %d: %w", id, ErrUnknown)
	}
	if !c.learns() {
		return observe.Trace{}, fmt.Errorf("settle container %d: it is not learned from", id)
	}
	shared := &o.shared.containers[c.index]
	atomic.AndUint32(&shared.Flags, ^uint32(bpfContainerFlagFLAG_LEARN))
	err := o.peekSince(time.Now())
	t := o.trace(c)
	if err != nil {
		t.Account.Gaps = append(t.Account.Gaps, "the last records could not be read: "+err.Error())
	}
	o.forgetCalls(c)
	c.follow = true
	return t, errors.Join(err, o.links.set(&o.objects, o.need()))
}

// AlsoWatch reports what the filters of a container deny that is learned from or followed: those that nobody is asked by.
func (o *Observer) AlsoWatch(id ID, a Allowed) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	c := o.containers[id]
	if c == nil {
		return fmt.Errorf("watch container %d: %w", id, ErrUnknown)
	}
	if err := o.permit(c, &a); err != nil {
		return fmt.Errorf("watch container %d: %w", id, err)
	}
	c.also = true
	atomic.OrUint32(&o.shared.containers[c.index].Flags, uint32(bpfContainerFlagFLAG_WATCH))
	return o.links.set(&o.objects, o.need())
}

// Hold says that a supervisor answers the container's filter from now on: what the filter refuses is not told, and who
// arrives from outside is.
func (o *Observer) Hold(id ID) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	c := o.containers[id]
	if c == nil {
		return fmt.Errorf("hold container %d: %w", id, ErrUnknown)
	}
	c.target.Held = true
	atomic.OrUint32(&o.shared.containers[c.index].Flags, uint32(bpfContainerFlagFLAG_HELD))
	return nil
}

// Injecting says that a filter is being put into the container's processes by ptrace, or no longer: what their threads call
// while they are traced is not their own, and is not recorded.
func (o *Observer) Injecting(id ID, now bool) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	c := o.containers[id]
	if c == nil {
		return fmt.Errorf("inject into container %d: %w", id, ErrUnknown)
	}
	flags := &o.shared.containers[c.index].Flags
	if now {
		atomic.OrUint32(flags, uint32(bpfContainerFlagFLAG_INJECT))
	} else {
		atomic.AndUint32(flags, ^uint32(bpfContainerFlagFLAG_INJECT))
	}
	return nil
}

// SetStage puts a container into a stage that no mark told of: one that never accepts a connection has booted, too. A
// mark that the kernel makes meanwhile wins.
func (o *Observer) SetStage(id ID, stage observe.Stage) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	c := o.containers[id]
	if c == nil {
		return fmt.Errorf("set the stage of container %d: %w", id, ErrUnknown)
	}
	if observe.Stage(atomic.LoadUint32(&o.shared.containers[c.index].Stage)) != stage {
		o.tick(c, stage)
	}
	return nil
}

// Stage that a container is in now: a signal that was sent before the question is in the answer.
func (o *Observer) Stage(id ID) (observe.Stage, bool) {
	p, ok := o.places.get(id)
	if !ok {
		return 0, false
	}
	return observe.Stage(atomic.LoadUint32(&o.shared.containers[p.index].Stage)), true
}

// endReload of a followed container: no epochs are counted there, only the time since the signal.
func (o *Observer) endReload(c *container, now time.Duration) {
	shared := &o.shared.containers[c.index]
	if observe.Stage(atomic.LoadUint32(&shared.Stage)) != observe.StageReload {
		return
	}
	number := atomic.LoadUint32(&shared.Epoch)
	var m bpfMark
	if err := o.objects.Marks.Lookup(bpfMarkKey{Uid: uint32(c.id), Epoch: number}, &m); err == nil {
		c.stagedAt = time.Duration(m.Ns)
	}
	if now-c.stagedAt <= reloadWindow {
		return
	}
	// Marks of every reload in a year would fill the map; nobody reads them.
	o.forgetMarks(c)
	o.tick(c, observe.StageRun)
}

// places of containers, and the names of what runs in them. Whoever answers a held call reads them, and a peek at the
// maps holds the Observer's own lock for milliseconds.
type places struct {
	mu sync.RWMutex
	of map[ID]place
}

type place struct {
	index uint32
	roles *sync.Map // exeKey → path
}

// exeKey is an executable by inode and device.
type exeKey [2]uint64

func (p *places) put(c *container) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.of == nil {
		p.of = map[ID]place{}
	}
	roles := &sync.Map{}
	for k, path := range maps.All(c.roles) { // of a container that was running
		roles.Store(exeKey(k), path)
	}
	p.of[c.id] = place{c.index, roles}
}

func (p *places) remove(id ID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.of, id)
}

func (p *places) get(id ID) (place, bool) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	at, ok := p.of[id]
	return at, ok
}
