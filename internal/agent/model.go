// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/holder"
	"github.com/whittle-sec/whittle/internal/judge"
	"github.com/whittle-sec/whittle/internal/kernel"
	"github.com/whittle-sec/whittle/internal/store"
	"github.com/whittle-sec/whittle/internal/supervise"
	"github.com/whittle-sec/whittle/internal/syscalls"
	"github.com/whittle-sec/whittle/internal/ward"
)

// Kinds of events. docs/formats.md lists them.
const (
	kindAgent   = "agent"
	kindStart   = "start"
	kindPhase   = "phase"
	kindSettled = "settled"
	kindNew     = "new-call"
	kindRefused = "refused"
	kindStop    = "stop"
	kindRelease = "release"
	kindProblem = "problem"

	kindSupervise = "supervise"
	kindAttach    = "attach"
	kindSeal      = "seal"
	kindShadow    = "shadow"
	kindMode      = "mode"
	kindAttest    = "attest"
	kindGrant     = "grant"
	kindHot       = "hot"
	kindExported  = "exported"
	kindJudged    = judge.KindJudged
	kindAsked     = "asked"

	kindQuarantined = "quarantined"

	kindLoop    = "loop"
	kindRenewed = "renewed"
)

// Kinds of events in the journal.
var Kinds = []string{
	kindAgent, kindStart, kindPhase, kindSettled, kindNew, kindRefused, kindStop, kindRelease, kindExported, kindProblem,
	kindSupervise, kindAttach, kindSeal, kindShadow, kindMode, kindAttest, kindGrant, kindHot, kindJudged, kindAsked, kindQuarantined,
	kindLoop, kindRenewed,
}

// model of the containers. Only the owner touches it.
type model struct {
	agent      *Agent
	containers map[key]*tracked
	observed   map[kernel.ID]*tracked
	exported   map[string]string // fingerprint → workload ID
	problems   map[string]string // by what has it
	queue      []job             // for the scholar, oldest first
	events     []api.Event       // not yet handed to the scholar
	readers    []chan<- struct{} // of the journal: closed when it has those events
	writing    bool              // the scholar writes the journal
	wrote      bool              // and did nothing else since
	surveying  bool
	modes      map[string]*workloadMode // by workload ID
	orders     map[string]*ward.Orders  // by workload ID: the newest that a profile or a grant was made from
	holder     *holder.Client           // nil while there is none
	strangers  map[string][]holder.Kept // listeners of containers that no hook has told of yet, by OCI id
	records    map[key]store.Supervised // of an earlier agent, as of this one's start
	lastStart  time.Time                // of a container; zero when its memory was given back since
	lastUnborn time.Time
	hadHolder  bool
	stuck      map[uint64]bool // listeners, by the holder's number, of which an agent that was killed may have taken calls along
	lastHandle supervise.Container
	rested     time.Time // when the next survey may begin
	lastSave   time.Time
	renewals   renewals
}

// key of a container: ids are unique within an engine.
type key struct{ engine, id string }

// tracked is one container.
type tracked struct {
	key
	reg     api.Registration
	owner   uint32 // who registered it: 0 for root, and for what an engine told
	view    api.Container
	id      kernel.ID // 0 when it is not observed
	exit    *exitWatch
	counts  map[refusalKey]*refusal
	calls   map[syscalls.ABI]syscalls.Set // of the service, all phases, at the last survey
	looked  time.Time                     // the last survey
	gone    bool                          // its exit was seen; the scholar has it
	learns  bool                          // its calls are recorded
	held    *held                         // nil: its calls are not held
	waiting []holder.Kept                 // listeners that came before its policy was read

	attaching, attesting bool
	isSealed             bool
	prepared             bool  // it was started under a profile of this agent's
	newcomers            []int // processes from outside that do not have the filter yet
	reaching             bool
	sealedAt             time.Time
	oracleOf             *twin // nil: it is no oracle
}

func newModel(a *Agent, exported map[string]string) *model {
	return &model{
		agent: a, exported: maps.Clone(exported), containers: map[key]*tracked{}, observed: map[kernel.ID]*tracked{},
		modes: map[string]*workloadMode{}, orders: map[string]*ward.Orders{}, strangers: map[string][]holder.Kept{}, records: map[key]store.Supervised{},
		stuck:    map[uint64]bool{},
		problems: map[string]string{}, lastSave: a.Now(),
	}
}

// own the model until ctx is done or a part of the agent fails.
func (m *model) own(ctx context.Context, fatal <-chan error) error {
	tick := time.NewTicker(m.agent.Survey)
	defer tick.Stop()
	for {
		out, next := m.next()
		select {
		case <-ctx.Done():
			return nil
		case err := <-fatal:
			if err != nil {
				return err
			}
		case f := <-m.agent.ops:
			f(m)
		case f := <-m.agent.results:
			f(m)
		case out <- next:
			m.taken(next)
		case <-tick.C:
			m.survey()
			m.watchOver()
		}
	}
}

// next job for the scholar; the channel is nil, which blocks, when there is none. The journal comes first, but not twice in a
// row: it tells soon what has happened, however much there is to learn, and what is learned does not wait for it either.
func (m *model) next() (chan<- job, job) {
	only := len(m.queue) == 0
	if !only {
		_, only = m.queue[0].(lastJob)
	}
	switch {
	case len(m.events)+len(m.readers) > 0 && (only || !m.wrote):
		return m.agent.jobs, journalJob{m.events, m.readers}
	case len(m.queue) == 0:
		return nil, nil
	}
	return m.agent.jobs, m.queue[0]
}

// taken by the scholar: what next gave.
func (m *model) taken(j job) {
	if _, m.wrote = j.(journalJob); m.wrote {
		m.events, m.readers, m.writing = nil, nil, true
		return
	}
	m.queue = m.queue[1:]
}

// drain every container, for at most drainTime.
func (m *model) drain(ctx context.Context) {
	for _, c := range m.containers {
		if c.id != 0 && !c.gone {
			m.finish(c, ending{gap: "the agent was stopped while the container ran"})
		}
	}
	m.event(kindAgent, nil, "agent stops")
	m.queue = append(m.queue, saveJob{}, lastJob{})
	timeout := time.NewTimer(drainTime)
	defer timeout.Stop()
	for {
		out, next := m.next()
		select {
		case out <- next:
			m.taken(next)
			if _, last := next.(lastJob); last {
				return
			}
		case f := <-m.agent.results:
			f(m)
		case <-timeout.C:
			m.agent.Log.Error("not everything was stored in time", "err", fmt.Errorf("%d jobs left", len(m.queue)))
			return
		case <-ctx.Done():
			return
		}
	}
}

func (m *model) closeAll() {
	for _, c := range m.containers {
		c.exit.close()
	}
}

// event is journaled; c may be nil.
func (m *model) event(kind string, c *tracked, text string) {
	e := api.Event{Time: m.agent.Now(), Kind: kind, Text: text}
	if c != nil {
		e.Container, e.Workload = c.view.Name, c.view.WorkloadID
	}
	m.events = append(m.events, e)
	m.agent.Log.Info(text, "kind", kind, "container", e.Container, "workload", e.Workload)
}

// workloadEvent happens to a workload and to no container of it.
func (m *model) workloadEvent(kind, workloadID, text string) {
	m.events = append(m.events, api.Event{Time: m.agent.Now(), Kind: kind, Workload: workloadID, Text: text})
	m.agent.Log.Info(text, "kind", kind, "workload", workloadID)
}

// What surveys may cost. The older a container is, the less there is to see in another second; and after a survey that took
// long, because there are many containers, the next one waits.
const (
	surveyAge  = 30 // a container is looked at again after this share of its age
	surveyRest = 20 // after a survey the scholar has time for other things, this many times as long as it took
)

// survey asks the scholar to look at the containers that are learned from and were not looked at lately, unless it still
// does.
func (m *model) survey() {
	now := m.agent.Now()
	if m.surveying {
		return
	}
	resting := now.Before(m.rested)
	var who []subject
	for _, c := range m.containers {
		if c.id == 0 || c.gone || !c.learns {
			continue
		}
		if c.looked.IsZero() || !resting && now.Sub(c.looked) >= now.Sub(c.view.Since)/surveyAge {
			c.looked = now
			who = append(who, c.subject())
		}
	}
	save := now.Sub(m.lastSave) >= m.agent.Save
	if len(who) == 0 && !save {
		return
	}
	if save {
		m.lastSave = now
	}
	m.surveying = true
	m.queue = append(m.queue, surveyJob{who: who, save: save})
}

// problem is shown by status until it is called again with an empty text.
func (m *model) problem(who, text string) {
	if m.problems[who] == text {
		return
	}
	if text == "" {
		delete(m.problems, who)
		return
	}
	m.problems[who] = text
	m.event(kindProblem, nil, who+": "+text)
}

func (m *model) status() api.Status {
	s := api.Status{Version: m.agent.Version, PID: selfPID, State: m.agent.State, Started: m.agent.started, Containers: []api.Container{}}
	for _, who := range slices.Sorted(maps.Keys(m.problems)) {
		s.Problems = append(s.Problems, who+": "+m.problems[who])
	}
	for _, e := range m.agent.Engines {
		s.Engines = append(s.Engines, e.Name())
	}
	for _, c := range m.containers {
		v := c.view
		v.Refused = c.refusals()
		if v.Supervision = m.supervision(c); v.Supervision != nil {
			v.Phase = v.Supervision.Phase
		}
		if c.held != nil && c.held.ward.Mode() == ward.Enforce && c.oracleOf == nil {
			// Nothing waits for this container to settle: its policy is what was learned before.
			v.Note, v.Partial, v.Settled = "", nil, c.held.ward.Orders().Policy.Settled
		}
		s.Containers = append(s.Containers, v)
	}
	slices.SortFunc(s.Containers, func(x, y api.Container) int { return x.Since.Compare(y.Since) })
	return s
}
