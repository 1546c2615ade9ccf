// SPDX-License-Identifier: Apache-2.0

package renew

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strconv"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/gate"
	"github.com/whittle-sec/whittle/internal/hint"
	"github.com/whittle-sec/whittle/internal/traffic"
	"github.com/whittle-sec/whittle/internal/units"
)

// Plan says how a renewal would be made, and changes nothing.
func (r *Runner) Plan(ctx context.Context, q Request) (Plan, error) {
	_, plan, err := r.plan(ctx, q)
	if err != nil {
		return plan, err
	}
	other := busy(r.Dir, func(j *journal) bool { return j.called(q.Container) })
	switch {
	case other == nil:
	case plan.Strategy == "": // in the middle of another renewal it may be stopped, which is no reason to start it
		plan.Refused, plan.Hint = other.Error(), hint.Of(other)
	default:
		plan.Warnings = append(plan.Warnings, fmt.Sprintf("now it would be refused: %v (%s)", other, hint.Of(other)))
	}
	return plan, nil
}

func (r *Runner) plan(ctx context.Context, q Request) (engine.Blueprint, Plan, error) {
	if err := q.Check(); err != nil {
		return engine.Blueprint{}, Plan{}, err
	}
	b, err := r.Engine.Blueprint(ctx, q.Container)
	if err != nil {
		return b, Plan{}, fmt.Errorf("see what %s is made of: %w", q.Container, err)
	}
	var f Facts
	if b.State.Alive() {
		if f, err = r.facts(ctx, b); err != nil {
			return b, Plan{}, fmt.Errorf("see what %s listens on: %w", q.Container, err)
		}
		f.Listeners = slices.DeleteFunc(f.Listeners, func(l netip.AddrPort) bool { return !q.needs(l, b.NetworkKept) })
	}
	if q.Successor != "" {
		s, err := r.Engine.Blueprint(ctx, q.Successor)
		if err != nil {
			return b, Plan{}, fmt.Errorf("see what %s is made of: %w", q.Successor, err)
		}
		f.Successor = &s
	}
	return b, Choose(b, f, q), nil
}

// Check what can be wrong with a request by itself.
func (q Request) Check() error {
	known := slices.Contains(Strategies, q.Strategy) || q.Strategy == ""
	switch {
	case q.Container == "":
		return fmt.Errorf("no container is named")
	case !known:
		return hint.Add(fmt.Errorf("unknown strategy %q", q.Strategy), "it is one of overlap, socket, hold, gate, restart")
	case !slices.Contains([]Writers{WritersGuessed, WritersOne, WritersMany}, q.Writers):
		return hint.Add(fmt.Errorf("unknown number of writers %q", q.Writers), "it is one or many")
	case !slices.Contains([]Retire{RetireRemove, RetireKeep}, q.Retire):
		return fmt.Errorf("unknown way to retire the predecessor %q", q.Retire)
	case q.Drain < 0 || q.Patience < 0:
		return fmt.Errorf("a time is negative")
	case q.Ready.HTTP != "" && q.Ready.HTTP[0] != '/':
		return hint.Add(fmt.Errorf("the path %q does not begin with a slash", q.Ready.HTTP), "give the path only: /healthz")
	case !slices.Contains([]engine.Addressing{engine.AddressAsMade, engine.AddressKeep, engine.AddressAny}, q.Changes.Address):
		return hint.Add(fmt.Errorf("unknown wish for an address %q", q.Changes.Address), "it is keep or any")
	case q.Changes.Name != "":
		return fmt.Errorf("a successor's name is chosen by the renewal")
	}
	return nil
}

// needs tells whether the successor has to listen there, too. In a network of its own it may have another address.
func (q Request) needs(l netip.AddrPort, networkKept bool) bool {
	return q.Ports == nil || slices.ContainsFunc(q.Ports, func(p netip.AddrPort) bool {
		return p == l || !networkKept && p.Port() == l.Port()
	})
}

// Listens tells where a container listens; nil if that cannot be told.
func Listens(c engine.Container) []netip.AddrPort {
	ns, err := traffic.OpenNetNS(c.PID)
	if err != nil {
		return nil
	}
	defer ns.Close()
	l, _, err := traffic.ListenersOf(processes(c), ns)
	if err != nil {
		return nil
	}
	defer l.Close()
	return l.Ports()
}

// facts of a container that runs.
func (r *Runner) facts(ctx context.Context, b engine.Blueprint) (Facts, error) {
	var f Facts
	_, f.Inits = r.Engine.(engine.Initializer)
	ns, err := traffic.OpenNetNS(b.PID)
	if err != nil {
		return f, err
	}
	defer ns.Close()
	listeners, unmovable, err := traffic.ListenersOf(processes(b.Container), ns)
	if err != nil {
		return f, err
	}
	defer listeners.Close()
	f.Listeners, f.Unmovable = listeners.Ports(), unmovable
	f.Inherited = inherited(b.PID)
	if b.SystemdUnit != "" {
		if err := f.lookAtUnit(ctx, b); err != nil {
			return f, err
		}
	}
	f.Sharer = Sharer(b)
	if err := traffic.Supported(); err != nil {
		f.NoTraffic = err.Error()
	}
	if f.Gate, err = gate.Supported(); err != nil {
		f.NoGate = err.Error()
	}
	return f, nil
}

// lookAtUnit that a container's label names. Anybody may set that: it counts if the unit's main process has started the container.
func (f *Facts) lookAtUnit(ctx context.Context, b engine.Blueprint) error {
	u, err := units.Look(ctx, b.SystemdUnit)
	if err != nil {
		f.NoUnit = withHint(err).Error()
		return nil
	}
	if parent := parentOf(b.PID); u.MainPID == 0 || u.MainPID != parent && u.MainPID != b.PID {
		f.NoUnit = fmt.Sprintf("its main process (%d) is not the one that has started the container (%d)", u.MainPID, parent)
		return nil
	}
	f.Unit = &u
	if !f.Inherited || len(u.Sockets) == 0 {
		return nil
	}
	host, err := traffic.OpenNetNS(systemdPID)
	if err != nil {
		return err
	}
	defer host.Close()
	l, others, err := traffic.ListenersOf(processes(b.Container), host)
	if err != nil {
		return err
	}
	defer l.Close()
	f.share(append(l.Ports(), f.Listeners...))
	for _, o := range others {
		if !slices.Contains(f.Unmovable, o) {
			f.Unmovable = append(f.Unmovable, o)
		}
	}
	f.Unmovable = slices.DeleteFunc(f.Unmovable, func(o traffic.Unmovable) bool { return slices.Contains(given(&u), o.Name) })
	return nil
}

// parentOf a process: an engine's monitor of a container; 0 when it is gone.
func parentOf(pid int) int {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return 0
	}
	for line := range bytes.Lines(text) {
		if value, ok := bytes.CutPrefix(line, []byte("PPid:")); ok {
			parent, _ := strconv.Atoi(string(bytes.TrimSpace(value)))
			return parent
		}
	}
	return 0
}

// inherited tells whether a service manager gave sockets to a process: what it was started with says so.
func inherited(pid int) bool {
	file, err := os.Open("/proc/" + strconv.Itoa(pid) + "/environ")
	if err != nil {
		return false
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, 256<<10))
	if err != nil {
		return false
	}
	for word := range bytes.SplitSeq(text, []byte{0}) {
		if n, ok := bytes.CutPrefix(word, []byte("LISTEN_FDS=")); ok && string(n) != "0" && len(n) > 0 {
			return true
		}
	}
	return false
}
