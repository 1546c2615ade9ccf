// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/whittle-sec/whittle/internal/judge"
	"github.com/whittle-sec/whittle/internal/loop"
	"github.com/whittle-sec/whittle/internal/oracle"
	"github.com/whittle-sec/whittle/internal/plan"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/renew"
	"github.com/whittle-sec/whittle/internal/store"
	"github.com/whittle-sec/whittle/internal/supervise"
	"github.com/whittle-sec/whittle/internal/syscalls"
	"github.com/whittle-sec/whittle/internal/ward"
	"github.com/whittle-sec/whittle/internal/workload"
)

// maxLooping calls of one workload wait for a time loop; those beyond are refused. Somebody inside must not be able to fill
// what its supervisor parks.
const maxLooping = 64

// twins are the workloads that have an oracle.
type twins struct {
	fresh chan *twin // to be driven

	mu      sync.Mutex
	of      map[string]*twin // by workload ID
	oracles map[string]*twin // by the id of the oracle's container: the agent made it, and believes no label
}

// twin is a workload with an oracle. Wards tell it what they refuse; its driver (loopdrive.go) does what is to be done.
type twin struct {
	agent *Agent
	id    string        // of the workload
	wake  chan struct{} // the driver looks at once
	ended chan struct{} // closed when the workload has no oracle any more
	// starting takes the container that systemd starts as the oracle, while the driver waits for it.
	starting chan newOracle

	mu        sync.Mutex
	workload  workload.Workload
	spec      oracle.Spec
	machine   *loop.Machine
	site      loopSite
	waits     []looping
	parked    uint64     // calls, ever
	given     []loop.Key // to be learned without a loop
	gave      map[loop.Key]int
	removed   bool // the oracle goes when production is back
	over      bool // it has gone: nobody drives this any more
	problem   string
	oracleOut bool // the oracle's container was seen to end
	left      bool // the loop's move is so far that new connections do not go to production
}

// loopSite is where a loop takes place. It is stored with the machine's state, before anything is done there.
type loopSite struct {
	Engine     string           `json:"engine,omitempty"`
	Production string           `json:"production,omitempty"` // id of a container
	Name       string           `json:"name,omitempty"`       // production's
	OracleName string           `json:"oracle_name,omitempty"`
	Oracle     string           `json:"oracle,omitempty"` // id; "" before it was made
	Unit       string           `json:"unit,omitempty"`   // of systemd, that manages production
	OracleUnit string           `json:"oracle_unit,omitempty"`
	Ports      []netip.AddrPort `json:"ports,omitempty"`   // that production listened on
	Dir        string           `json:"dir,omitempty"`     // what is mounted into the oracle
	Writers    renew.Writers    `json:"writers,omitempty"` // whether both may run at once
	Armed      bool             `json:"armed,omitempty"`   // the oracle was seen to have its hardening
	Lost       string           `json:"lost,omitempty"`    // what the moves interrupted
}

// loopSaved is what the store has of a twin.
type loopSaved struct {
	Machine loop.Saved `json:"machine"`
	Site    loopSite   `json:"site"`
}

// storedOracle is what the store has of an oracle: it may be set before anything was learned.
type storedOracle struct {
	oracle.Spec
	Workload workload.Workload `json:"workload"`
}

// looping is a parked call.
type looping struct {
	number     uint64 // in the order of their coming
	from       key
	held       supervise.Held
	errno      int32
	asked      judge.Case
	ward       *ward.Ward
	supervisor *supervise.Supervisor
}

func (a *Agent) newTwin(w workload.Workload, spec oracle.Spec, saved loopSaved) *twin {
	return &twin{
		agent: a, id: w.ID(), workload: w, spec: spec, machine: loop.New(a.limits(spec), saved.Machine), site: saved.Site,
		wake: make(chan struct{}, 1), ended: make(chan struct{}), starting: make(chan newOracle),
	}
}

func (a *Agent) limits(spec oracle.Spec) loop.Limits {
	l := a.Moving.Limits
	if spec.Quiet > 0 {
		l.Quiet = spec.Quiet
	}
	return l
}

// readTwins that were stored.
func (a *Agent) readTwins(ctx context.Context) error {
	oracles, err := a.Store.Oracles(ctx)
	if err != nil {
		return fmt.Errorf("read the oracles: %w", err)
	}
	states, err := a.Store.Loops(ctx)
	if err != nil {
		return fmt.Errorf("read the time loops: %w", err)
	}
	for _, o := range oracles {
		var stored storedOracle
		if err := json.Unmarshal(o.Spec, &stored); err != nil || stored.Workload.ID() != o.Workload {
			return fmt.Errorf("read the oracle of %s: %w", o.Workload, errors.Join(err, errors.New("it is another workload's")))
		}
		var saved loopSaved
		if i := slices.IndexFunc(states, func(l store.Loop) bool { return l.Workload == o.Workload }); i >= 0 {
			if err := json.Unmarshal(states[i].Saved, &saved); err != nil {
				return fmt.Errorf("read the time loop of %s: %w", o.Workload, err)
			}
		}
		a.twins.add(a.newTwin(stored.Workload, stored.Spec, saved))
	}
	return nil
}

func (ts *twins) add(t *twin) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	ts.of[t.id] = t
	if t.site.Oracle != "" {
		ts.oracles[t.site.Oracle] = t
	}
}

// find the twin of a workload; nil when it has no oracle.
func (ts *twins) find(workloadID string) *twin {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	return ts.of[workloadID]
}

// whose oracle a container is; nil when it is none's.
func (ts *twins) whose(container string) *twin {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	return ts.oracles[container]
}

func (ts *twins) all() (all []*twin) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	for _, t := range ts.of {
		all = append(all, t)
	}
	slices.SortFunc(all, func(x, y *twin) int { return strings.Compare(x.id, y.id) })
	return all
}

// known as an oracle from now on, before it starts.
func (ts *twins) known(container string, t *twin) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	ts.oracles[container] = t
}

func (ts *twins) forget(container string) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	delete(ts.oracles, container)
}

func (t *twin) stir() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// refused is asked about a call that production's panel does not let through. A ward's worker calls it: it waits for nobody.
func (t *twin) refused(c looping) (parked bool, why string) {
	q := c.asked.Question
	if q.Phase == policy.Stop {
		return false, "a service that is being stopped is not to be started for it"
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over {
		return false, ""
	}
	if why := t.cannotTell(q.Call, tellsRoles(c.ward, q.Call)); why != "" {
		return false, why
	}
	now := t.agent.Now()
	k := loop.Key{Call: q.Call, Role: q.Role, Phase: q.Phase}
	if allocates(t.spec.Kind, c.asked) {
		return t.ownMemory(k, c)
	}
	if t.machine.State() != loop.Production && c.from.id == t.site.Production {
		if t.machine.State() == loop.ToOracle && !t.left {
			return t.park(c) // it ends with the call that began the loop, and not before new connections go elsewhere
		}
		return false, "a time loop is under way, and this container is about to end or has just begun"
	}
	d := t.machine.Refused(now, k, q.Refusal)
	switch d.Answer {
	case loop.StartLoop:
		t.site = loopSite{Engine: c.from.engine, Production: c.from.id}
		t.oracleOut, t.left = false, false
	case loop.Join, loop.Learned:
	default:
		return false, d.Why
	}
	return t.park(c)
}

// park a call until its loop has ended, or its driver has learned it.
func (t *twin) park(c looping) (parked bool, why string) {
	defer t.stir()
	if len(t.waits) >= maxLooping {
		t.waits = slices.DeleteFunc(t.waits, func(l looping) bool { return !l.supervisor.Waits(l.held) })
	}
	if len(t.waits) >= maxLooping {
		return false, "too many of its calls wait for the end of one"
	}
	t.parked++
	c.number = t.parked
	t.waits = append(t.waits, c)
	return true, ""
}

// cannotTell is why the oracle does not vouch for a call, or "". What starts a program is what attacks are for: that one was
// reached says something only where memory that was corrupted before is noticed, or where the hook looks at just this. roles
// says that the policy tells them apart: what a program does that was started must not become the service's.
func (t *twin) cannotTell(call syscalls.Call, roles bool) string {
	kind := t.spec.Kind
	switch {
	case !judge.StartsProgram(call):
	case kind.Strength() < oracle.Medium:
		return fmt.Sprintf("it starts a program, and an oracle of the kind %s is too weak (%s) to vouch for that", kind, kind.Strength())
	case roles && kind.RunsAll():
		return fmt.Sprintf("it starts a program, and what that does %s would do in the service's name", kind)
	}
	return ""
}

// tellsRoles reports whether the policy that a ward goes by tells them apart for a call's ABI.
func tellsRoles(w *ward.Ward, call syscalls.Call) bool {
	calls := w.Orders().Policy.ABIs[call.ABI]
	return calls != nil && len(calls.Roles) > 0
}

// settle parked calls: those that the policy has by now are let through. The others of the container, or of every one for the
// zero key, are refused for a reason, or wait on without one.
func (t *twin) settle(from key, why string) {
	t.let()
	if why != "" {
		t.refuse(why, func(l looping) bool { return from == key{} || l.from == from })
	}
}

// let the parked calls through that the policy has by now.
func (t *twin) let() {
	for _, l := range t.take(func(l looping) bool { return l.ward.Allows(l.asker(), l.held) }) {
		_ = l.supervisor.Settle(l.held, supervise.Verdict{Allow: true}) // its caller may be gone
	}
}

func (t *twin) refuse(why string, which func(looping) bool) {
	for _, l := range t.take(which) {
		if l.supervisor.Settle(l.held, supervise.Verdict{Errno: l.errno}) == nil {
			l.ward.Refused(l.held, l.errno, l.asked, why)
		}
	}
}

func (l *looping) asker() plan.Asker {
	q := l.asked.Question
	return plan.Asker{Lane: q.Lane, Phase: q.Phase, Role: q.Role, Birth: q.Birth}
}

// take parked calls off the list: whoever takes one answers it.
func (t *twin) take(which func(looping) bool) (taken []looping) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.waits = slices.DeleteFunc(t.waits, func(l looping) bool {
		if !which(l) {
			return false
		}
		taken = append(taken, l)
		return true
	})
	return taken
}

// drop the parked calls of a container that is no longer supervised: its supervisor has refused them.
func (t *twin) drop(of supervise.Container) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.waits = slices.DeleteFunc(t.waits, func(l looping) bool { return l.held.Container == of })
}

// reached is asked about a call that the oracle makes and the policy does not have.
func (t *twin) reached(w *ward.Ward, h supervise.Held, c judge.Case) (allow bool, why string) {
	if oracle.OwnCall(c.Evidence.Origin.Path) {
		return true, "it is the hardening's own, and not learned"
	}
	q := c.Question
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.spec.Launches(programOf(q.Role), q.Phase == policy.Boot) {
		return true, "it starts the hardening, and is not learned"
	}
	if why := t.cannotTell(q.Call, tellsRoles(w, q.Call)); why != "" {
		return false, why
	}
	if judge.StartsProgram(q.Call) && t.spec.Kind.Strength() < oracle.Strong {
		// What an intruder leaves to a callback of the service looks like the service's own to a hook.
		return false, fmt.Sprintf("it starts a program; an oracle of the kind %s reports who was caught at it, and cannot vouch for the others", t.spec.Kind)
	}
	now := t.agent.Now()
	t.machine.Reached(now, loop.Key{Call: q.Call, Role: q.Role, Phase: q.Phase}, h.TID)
	if w.LateBoot() { // the service answers already: production may make it when the boot is over
		t.machine.Reached(now, loop.Key{Call: q.Call, Role: q.Role, Phase: policy.Run}, h.TID)
	}
	return true, "it is reached, and learned if the oracle does not abort"
}

// loopCourt has a ward's refusals go to the loop of its workload, whenever it gets an oracle; or, where the container is an
// oracle, its unknown calls to the workload's.
func (m *model) loopCourt(c *tracked, s *supervise.Supervisor, court *ward.Court) {
	a, from, id, w := m.agent, c.key, c.view.WorkloadID, c.held.ward
	if a.Moving == nil {
		return
	}
	if t := c.oracleOf; t != nil {
		court.Fleet = func(syscalls.Call) judge.Fleet { return judge.Fleet{} } // no replica
		court.Reach = func(h supervise.Held, asked judge.Case) (bool, string) { return t.reached(w, h, asked) }
		return
	}
	court.HasOracle = func() bool { return a.loops(id) }
	court.Loop = func(h supervise.Held, errno int32, asked judge.Case) (bool, string) {
		t := a.twins.find(id)
		if t == nil {
			return false, ""
		}
		return t.refused(looping{from: from, held: h, errno: errno, asked: asked, ward: w, supervisor: s})
	}
}

// loops tells whether a workload has an oracle.
func (a *Agent) loops(workloadID string) bool { return a.twins.find(workloadID) != nil }

// dropLooping calls of a container that is no longer supervised; a driver looks what has become of an oracle.
func (a *Agent) dropLooping(c *tracked) {
	t := a.twins.find(c.view.WorkloadID)
	if t == nil {
		return
	}
	t.drop(c.held.handle)
	if c.oracleOf != nil {
		t.mu.Lock()
		t.oracleOut = true
		t.mu.Unlock()
		t.stir()
	}
}
