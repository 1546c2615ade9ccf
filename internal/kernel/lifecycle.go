// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// lossNames are what an account calls the kernel's counters.
var lossNames = [...]string{
	bpfLossLOSS_TASK: "task", bpfLossLOSS_CELL: "cell", bpfLossLOSS_CALL: "call", bpfLossLOSS_BURST: "burst",
	bpfLossLOSS_ARG: "argument", bpfLossLOSS_ROLE: "role", bpfLossLOSS_MARK: "mark", bpfLossLOSS_DENIED: "denied",
	bpfLossLOSS_EVENT: "event", bpfLossLOSS_CHILD: "child-cgroup",
}

// Observe starts learning from a container. When it returns nil, no later call of the container is missed.
func (o *Observer) Observe(t Target) (ID, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	c, err := o.add(t, nil, false)
	if err != nil {
		return 0, fmt.Errorf("observe a container: %w", err)
	}
	return c.id, nil
}

// Watch reports what the container's filter denies and records nothing else.
func (o *Observer) Watch(t Target, a Allowed) (ID, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	c, err := o.add(t, &a, false)
	if err != nil {
		return 0, fmt.Errorf("watch a container: %w", err)
	}
	return c.id, nil
}

func (o *Observer) add(t Target, allowed *Allowed, follow bool) (*container, error) {
	keys := t.keys()
	if len(keys) == 0 {
		return nil, errors.New("it has neither a cgroup nor a mount namespace of its own")
	}
	c := &container{
		id: ID(o.lastUID + 1), target: t, watch: allowed != nil, follow: follow, added: bootTime(), skipped: o.skipped(),
		roles: map[[2]uint64]string{},
	}
	c.empty()
	c.epochs = []epoch{{at: c.added}}
	// The programs first: a container that is in the table is observed.
	want := o.need()
	want.lives, want.enter, want.exit = true, want.enter || c.learns(), want.exit || !c.follow
	if err := o.links.set(&o.objects, want); err != nil {
		return nil, errors.Join(err, o.links.set(&o.objects, o.need()))
	}
	if err := o.permit(c, allowed); err != nil {
		return nil, errors.Join(err, o.links.set(&o.objects, o.need()))
	}
	o.lastUID++
	index, err := o.shared.claim(c.toKernel())
	if err != nil {
		return nil, errors.Join(err, o.links.set(&o.objects, o.need()))
	}
	c.index = index
	for _, key := range keys {
		if err := o.shared.point(key, index); err != nil {
			o.shared.unpoint(index)
			o.shared.release(index)
			return nil, errors.Join(err, o.links.set(&o.objects, o.need()))
		}
	}
	if t.Late {
		c.nameRunning()
	}
	o.containers[c.id] = c
	o.places.put(c)
	return c, nil
}

// learns tells whether its calls are recorded.
func (c *container) learns() bool { return !c.watch && !c.follow }

// keys by which the programs know the container's tasks.
func (t Target) keys() (keys []uint64) {
	if t.CgroupID > 1 { // 1 is the root
		keys = append(keys, t.CgroupID)
		if t.Late {
			keys = append(keys, cgroupsBelow(t.InitPID, t.CgroupID)...)
		}
		return keys
	}
	if t.MountNS != 0 {
		keys = append(keys, keyMountNS|t.MountNS)
	}
	return keys
}

func (c *container) toKernel() bpfContainer {
	k := bpfContainer{
		Uid: uint32(c.id), Init: uint32(c.target.InitPID), MntNs: c.target.MountNS,
		StopSignal: uint32(c.target.StopSignal), Flags: uint32(bpfContainerFlagFLAG_LEARN),
	}
	switch {
	case c.watch:
		k.Flags = uint32(bpfContainerFlagFLAG_WATCH)
	case c.follow:
		k.Flags = 0
	}
	if c.target.Held {
		k.Flags |= uint32(bpfContainerFlagFLAG_HELD)
	}
	if k.StopSignal == 0 {
		k.StopSignal = uint32(unix.SIGTERM)
	}
	if c.target.Late {
		k.Flags |= uint32(bpfContainerFlagFLAG_LATE)
	}
	return k
}

func (o *Observer) permit(c *container, allowed *Allowed) error {
	if allowed == nil {
		return nil
	}
	sets := map[syscalls.ABI]*bpfAllowed{}
	for _, abi := range syscalls.ABIs {
		sets[abi] = &bpfAllowed{Calls: allowed.Calls[abi]}
	}
	for call, checks := range allowed.Checked {
		sets[call.ABI].Checked[call.Nr/64] |= 1 << (call.Nr % 64)
		key := bpfCheckKey{Uid: uint32(c.id), Nr: uint16(call.Nr), Abi: uint8(call.ABI)}
		c.checked = append(c.checked, key)
		value := toKernel(checks)
		if err := o.objects.Checks.Update(key, &value, ebpf.UpdateAny); err != nil {
			return fmt.Errorf("tell the kernel what the filter checks: %w", err)
		}
	}
	for abi, set := range sets {
		key := bpfAllowedKey{Uid: uint32(c.id), Abi: uint32(abi)}
		if err := o.objects.Permitted.Update(key, set, ebpf.UpdateAny); err != nil {
			return fmt.Errorf("tell the kernel what the filter allows: %w", err)
		}
	}
	return nil
}

// toKernel is empty where the programs cannot decide by one argument.
func toKernel(checks []Check) (k bpfCheck) {
	if len(checks) == 0 || len(checks) > len(k.Values) {
		return bpfCheck{}
	}
	k.Index = uint32(checks[0].Index)
	for i, check := range checks {
		if check.Index != checks[0].Index {
			return bpfCheck{}
		}
		k.Masks[i], k.Values[i] = check.Mask, check.Value
	}
	k.Count = uint32(len(checks))
	return k
}

// readyWait is how long sys_exit is kept attached for a container that accepts nothing, to see whether it still will.
const readyWait = 5 * time.Minute

// need of all containers together.
func (o *Observer) need() (n need) {
	now := bootTime() // once: with 10,000 containers it would be the most of it
	for _, c := range o.containers {
		n.lives = true
		booting := atomic.LoadUint32(&o.shared.containers[c.index].Stage) == uint32(observe.StageBoot) &&
			now-c.added < readyWait
		n.enter = n.enter || c.learns()
		n.exit = n.exit || c.watch || c.also || c.learns() && (c.target.Filtered || booting)
	}
	return n
}

// Trace is what was observed until at most a fifth of a second ago.
func (o *Observer) Trace(id ID) (observe.Trace, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	c := o.containers[id]
	if c == nil {
		return observe.Trace{}, fmt.Errorf("trace container %d: %w", id, ErrUnknown)
	}
	if err := o.peekSince(time.Now().Add(-200 * time.Millisecond)); err != nil {
		return observe.Trace{}, err
	}
	return o.trace(c), nil
}

func (o *Observer) trace(c *container) observe.Trace {
	t := c.trace(bootTime(), NativeABI)
	t.Account = o.account(c)
	return t
}

// Finish drains what is left, forgets the container and detaches what nobody needs any more. ended tells that the
// container has exited, so that nothing can come any more.
func (o *Observer) Finish(id ID, ended bool) (observe.Trace, error) {
	called := time.Now()
	o.mu.Lock()
	defer o.mu.Unlock()
	c := o.containers[id]
	if c == nil {
		return observe.Trace{}, fmt.Errorf("finish container %d: %w", id, ErrUnknown)
	}
	// First nothing more is recorded, then everything is read: what is forgotten was read.
	o.shared.unpoint(c.index)
	if !ended {
		called = time.Now()
	}
	err := o.peekSince(called)
	t := o.trace(c)
	t.Ended = ended
	if err != nil {
		t.Account.Gaps = append(t.Account.Gaps, "the last records could not be read: "+err.Error())
	}
	o.shared.release(c.index)
	o.places.remove(c.id)
	o.forget(c)
	delete(o.containers, id)
	return t, errors.Join(err, o.links.set(&o.objects, o.need()))
}

func (o *Observer) account(c *container) observe.Account {
	k := &o.shared.containers[c.index]
	a := observe.Account{
		Late:           c.target.Late,
		Losses:         map[string]uint64{},
		UnknownNumbers: atomic.LoadUint64(&k.Unknown),
		Recorded:       atomic.LoadUint64(&k.Recorded),
		Drained:        uint64(len(c.calls)),
		Gaps:           c.problems,
		NoOrigins:      o.noOrigins,
	}
	for i, name := range lossNames {
		if n := atomic.LoadUint32(&k.Lost[i]); n > 0 {
			a.Losses[name] = uint64(n)
		}
	}
	if c.untold > 0 {
		a.Losses[lossNames[bpfLossLOSS_EVENT]] += c.untold
	}
	if n := o.skipped() - c.skipped; n > 0 {
		a.Losses["program-skipped"] = n
	}
	for key := range c.calls {
		if syscalls.Name(syscalls.ABI(key.Abi), uint32(key.Nr)) == "io_uring_setup" {
			a.IOUring = true
		}
	}
	if c.left() {
		a.Gaps = append(slices.Clip(a.Gaps), gapLeft)
	}
	return a
}

// skipped is how often the kernel did not run one of the programs that record, because it was running already on that CPU.
func (o *Observer) skipped() (n uint64) {
	for _, p := range []*ebpf.Program{o.objects.SysEnter, o.objects.ProcessExec, o.objects.ProcessFork} {
		if stats, err := p.Stats(); err == nil {
			n += stats.RecursionMisses
		}
	}
	return n
}

// NativeABI of the machine that this program was built for.
var NativeABI = map[string]syscalls.ABI{"amd64": syscalls.X86_64, "arm64": syscalls.ARM64}[runtime.GOARCH]
