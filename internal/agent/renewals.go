// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/filter"
	"github.com/whittle-sec/whittle/internal/loop"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/renew"
)

// RenewKey is the label that says whether the agent may let a successor take over from a container: auto or never.
const RenewKey = "io.whittle.renew"

const (
	renewEvery = time.Hour        // of one container, at most
	renewAfter = 30 * time.Second // a reason seldom comes alone
)

// renewals that the agent makes by itself. The owner has them.
type renewals struct {
	wanted map[key]wantedRenewal
	last   map[string]time.Time // by renewalName
	busy   bool
}

// wantedRenewal of one container, and why.
type wantedRenewal struct {
	since time.Time
	why   []string
	told  bool
}

// renewal that is to be made.
type renewal struct {
	of       key
	name     string
	workload string // ID
	why      string
	static   bool // it runs under a profile that was exported
}

// renewalName is how a container is called from one renewal to the next.
func renewalName(engine, name string) string { return engine + "/" + name }

// mayRenew tells whether the agent may do it by itself.
func (m *model) mayRenew(c *tracked) bool {
	switch {
	case m.agent.maker(c.engine) == nil, c.owner != 0, c.oracleOf != nil:
		return false
	}
	if t := m.agent.twins.find(c.view.WorkloadID); t != nil && t.current() != loop.Production {
		return false // after its time loop
	}
	switch c.reg.Container.Labels[RenewKey] {
	case "auto":
		return true
	case "":
		return m.agent.Moving.Renew
	}
	return false
}

// renewBy is what to type for what the agent does not do by itself.
func renewBy(c *tracked) string { return "whittle renew " + c.view.Name }

// wantRenewal of a container that has another filter than it should have by now.
func (m *model) wantRenewal(c *tracked, why string) {
	if c.oracleOf != nil {
		return
	}
	if m.renewals.wanted == nil {
		m.renewals.wanted = map[key]wantedRenewal{}
	}
	w, ok := m.renewals.wanted[c.key]
	if !ok {
		w.since = m.agent.Now()
	}
	if slices.Contains(w.why, why) {
		return
	}
	if len(w.why) < 8 {
		w.why = append(w.why, why)
	}
	m.renewals.wanted[c.key] = w
	if !w.told && !m.mayRenew(c) {
		w.told = true
		m.renewals.wanted[c.key] = w
		m.event(kindRenewed, c, fmt.Sprintf("%s: %s; without an interruption: %s", c.view.Name, why, renewBy(c)))
	}
}

// renewDue begins one renewal that is due, unless one is under way: never two at a time on a host.
func (m *model) renewDue() {
	now := m.agent.Now()
	maps.DeleteFunc(m.renewals.wanted, func(k key, _ wantedRenewal) bool {
		c := m.containers[k]
		return c == nil || c.gone
	})
	maps.DeleteFunc(m.renewals.last, func(_ string, at time.Time) bool { return now.Sub(at) >= renewEvery })
	if m.renewals.busy {
		return
	}
	order := slices.SortedFunc(maps.Keys(m.renewals.wanted), func(x, y key) int {
		return cmp.Or(m.renewals.wanted[x].since.Compare(m.renewals.wanted[y].since), strings.Compare(x.id, y.id))
	})
	for _, k := range order {
		w, c := m.renewals.wanted[k], m.containers[k]
		_, lately := m.renewals.last[renewalName(c.engine, c.view.Name)]
		if lately || now.Sub(w.since) < renewAfter || !m.mayRenew(c) || c.view.Phase != policy.Run && c.held != nil {
			continue
		}
		r := renewal{of: k, name: c.view.Name, workload: c.view.WorkloadID, why: strings.Join(w.why, "; "), static: c.view.Mode == api.Enforced && !c.isSealed}
		select {
		case m.agent.renewing <- r:
			m.renewals.busy = true
			m.renewedAt(renewalName(c.engine, c.view.Name), now)
			delete(m.renewals.wanted, k)
		default: // whoever makes them is not there yet
		}
		return
	}
}

func (m *model) renewedAt(name string, at time.Time) {
	if m.renewals.last == nil {
		m.renewals.last = map[string]time.Time{}
	}
	m.renewals.last[name] = at
}

// readRenewals of the last hour.
func (m *model) readRenewals(ctx context.Context) error {
	if m.agent.Moving == nil {
		return nil
	}
	events, err := m.agent.Store.Events(ctx, api.EventQuery{Kind: kindRenewed, Limit: 1000})
	if err != nil {
		return fmt.Errorf("read what was renewed: %w", err)
	}
	for _, e := range events {
		var done renewedData
		if json.Unmarshal(e.Data, &done) == nil && done.Engine != "" && m.agent.Now().Sub(e.Time) < renewEvery {
			m.renewedAt(renewalName(done.Engine, e.Container), e.Time)
		}
	}
	return nil
}

// renewedData of an event.
type renewedData struct {
	Engine string        `json:"engine"`
	Why    string        `json:"why"`
	Result *renew.Result `json:"result,omitempty"`
	Error  string        `json:"error,omitempty"`
}

// renewContainers one after the other, until ctx is done.
func (a *Agent) renewContainers(ctx context.Context) {
	for _, engine := range slices.Sorted(maps.Keys(a.Moving.Makers)) {
		a.recoverMoves(ctx, engine)
	}
	daily := time.NewTicker(pruneEvery)
	defer daily.Stop()
	for {
		a.prune(ctx)
		select {
		case <-ctx.Done():
			return
		case <-daily.C:
		case r := <-a.renewing:
			result, err := a.renewOne(ctx, r)
			if ctx.Err() != nil {
				return // it goes on, and its result is in its journal
			}
			_ = a.ask(ctx, func(m *model) error {
				m.renewals.busy = false
				m.renewed(r, result, err)
				return nil
			})
		}
	}
}

// recoverMoves finishes or undoes the renewals that were cut off, as by a reboot, and tells whether one of these containers' goes
// on.
func (a *Agent) recoverMoves(ctx context.Context, engine string, containers ...string) (busy bool) {
	done, busy, err := a.Moving.Recover(ctx, engine, containers...)
	if err != nil && ctx.Err() == nil {
		a.Log.Error("finish the renewals that were cut off", "engine", engine, "err", err)
	}
	_ = a.ask(ctx, func(m *model) error {
		for _, r := range done {
			m.renewed(renewal{of: key{engine, r.Predecessor}, name: r.Container, why: "it was cut off"}, r, nil)
		}
		return nil
	})
	return busy
}

// renewOne container: a supervised one gets its plan from the hook when its successor starts, a static one a new profile.
func (a *Agent) renewOne(ctx context.Context, r renewal) (renew.Result, error) {
	q := renew.Request{Container: r.of.id}
	if r.static {
		var err error
		if q.Changes, err = a.newProfile(ctx, r.of.engine, r.workload); err != nil {
			return renew.Result{}, err
		}
	}
	return a.Moving.Move(ctx, r.of.engine, q, nil)
}

// newProfile of a workload, for an engine that loads it from a file.
func (a *Agent) newProfile(ctx context.Context, engineName, id string) (c engine.Changes, err error) {
	p, revision, ok, err := a.Store.Current(ctx, id)
	if err != nil || !ok {
		return c, fmt.Errorf("read the policy: %w", cmp.Or(err, errNoPolicy))
	}
	rules, err := filter.FromPolicy(p, policy.Selection{})
	if err != nil {
		return c, err
	}
	profile, err := filter.OCI(rules)
	if err != nil {
		return c, err
	}
	text, err := filter.MarshalOCI(profile)
	if err != nil {
		return c, err
	}
	dir := a.profileDir(engineName)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return c, fmt.Errorf("write a profile: %w", err)
	}
	c.Seccomp = filepath.Join(dir, fmt.Sprintf("%s-%d.json", id, revision)) // it stays while a container is made with it
	if err := os.WriteFile(c.Seccomp, text, 0o644); err != nil {
		return c, fmt.Errorf("write a profile: %w", err)
	}
	return c, a.RecordExport(ctx, api.Export{Fingerprint: filter.Fingerprint(profile), Workload: id, Version: revision, Format: "oci"})
}

// renewed or not: it is in the journal, and not tried again for a while.
func (m *model) renewed(r renewal, result renew.Result, err error) {
	data := renewedData{Engine: r.of.engine, Why: r.why}
	text := fmt.Sprintf("%s could not be renewed (%s)", r.name, r.why)
	if err != nil {
		data.Error = err.Error()
		text += ": " + err.Error()
	} else {
		data.Result = &result
		text = fmt.Sprintf("%s: %s (%s) by %s, new connections waited for %s at most", r.name, result.Outcome, r.why, result.Strategy,
			result.Gap.Round(time.Millisecond))
		if result.Why != "" {
			text += ": " + result.Why
		}
	}
	m.workloadEvent(kindRenewed, r.workload, text)
	e := &m.events[len(m.events)-1]
	e.Container = r.name
	if e.Data, err = json.Marshal(data); err != nil || len(e.Data) > maxCaseData {
		e.Data, _ = json.Marshal(renewedData{Engine: data.Engine}) // strings only
	}
}

// widened is what becomes of containers whose policy allows more than their filter, which nobody is asked by.
func (m *model) widened(id, why string) {
	for _, c := range m.containers {
		if c.view.WorkloadID == id && !c.gone && (c.isSealed || c.view.Mode == api.Enforced) {
			m.wantRenewal(c, why)
		}
	}
}
