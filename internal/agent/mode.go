// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/store"
	"github.com/whittle-sec/whittle/internal/ward"
)

var (
	_ api.ModeLister = (*Agent)(nil)
	_ api.Moder      = (*Agent)(nil)
)

// workloadMode is the mode of one workload: what was set, and what that has come to.
type workloadMode struct {
	id, name    string
	set         api.WorkloadMode
	by, why     string
	now         api.WorkloadMode // learn, shadow, enforce or off
	since       time.Time
	shadowSince time.Time // of the present time of shadow without a would-deny
	wouldDeny   uint64
}

// modeOf a workload; of one that nobody set anything for it is the agent's default.
func (m *model) modeOf(id string) *workloadMode {
	w := m.modes[id]
	if w == nil {
		w = &workloadMode{id: id, by: "default", set: m.defaultMode(), since: m.agent.Now()}
		w.now = firstStep(w.set)
		m.modes[id] = w
	}
	return w
}

func (m *model) defaultMode() api.WorkloadMode {
	if s := m.agent.Supervising; s != nil && s.Default != "" {
		return s.Default
	}
	return api.ModeLearn
}

// firstStep of a mode: auto begins by learning.
func firstStep(set api.WorkloadMode) api.WorkloadMode {
	if set == api.ModeAuto {
		return api.ModeLearn
	}
	return set
}

// modeFor a container: its own label, else its workload's mode.
func (m *model) modeFor(c *tracked) api.WorkloadMode {
	if own := ownMode(c.reg.Container.Labels); own != "" {
		return own
	}
	return m.modeOf(c.view.WorkloadID).now
}

// readModes that were stored.
func (m *model) readModes(ctx context.Context) error {
	stored, err := m.agent.Store.Modes(ctx)
	if err != nil {
		return fmt.Errorf("read the modes: %w", err)
	}
	for _, s := range stored {
		m.modes[s.Workload] = &workloadMode{
			id: s.Workload, set: api.WorkloadMode(s.Mode), by: s.By, why: s.Why, now: api.WorkloadMode(s.Now), since: s.Since,
			shadowSince: s.ShadowSince, wouldDeny: s.WouldDeny,
		}
		if s.Now == string(api.ModeShadow) {
			m.modes[s.Workload].shadowSince = m.agent.Now() // nobody watched meanwhile
		}
	}
	return nil
}

func (m *model) storeMode(w *workloadMode) {
	s := store.Mode{
		Workload: w.id, Mode: string(w.set), By: w.by, Why: w.why, Since: w.since, Now: string(w.now),
		ShadowSince: w.shadowSince, WouldDeny: w.wouldDeny,
	}
	m.record(func(ctx context.Context, st Store) error { return st.PutMode(ctx, s) })
}

// enter a mode: every container of the workload has it when enter returns, but for those that must be attached to first.
func (m *model) enter(w *workloadMode, now api.WorkloadMode, why string) {
	if w.now == now {
		return
	}
	w.now, w.since = now, m.agent.Now()
	w.shadowSince, w.wouldDeny = time.Time{}, 0
	if now == api.ModeShadow {
		w.shadowSince = w.since
	}
	m.storeMode(w)
	m.workloadEvent(kindMode, w.id, fmt.Sprintf("%s: %s from now on: %s", cmpOr(w.name, w.id), now, why))
	for _, c := range m.containers {
		if c.view.WorkloadID == w.id && !c.gone {
			m.applyMode(c)
		}
	}
}

func cmpOr(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// applyMode to one container.
func (m *model) applyMode(c *tracked) {
	if c.held != nil {
		c.held.ward.SetMode(m.wardMode(c))
		mode, engine, id := c.held.ward.Mode().String(), c.engine, c.key.id
		if c.held.ward.Mode() != ward.Off {
			m.record(func(ctx context.Context, s Store) error { return s.SetSupervisedMode(ctx, engine, id, mode) })
		}
		return
	}
	switch m.modeFor(c) {
	case api.ModeShadow, api.ModeEnforce:
		m.bringUnder(c, false)
	}
}

// countWouldDeny restarts the time of shadow of a container's workload if there were any since the last time: each, not only
// those that are journaled.
func (m *model) countWouldDeny(c *tracked) {
	_, would, _ := c.held.ward.Counts()
	if would == c.held.wouldDeny {
		return
	}
	w := m.modeOf(c.view.WorkloadID)
	w.wouldDeny += would - c.held.wouldDeny
	c.held.wouldDeny = would
	w.shadowSince = m.agent.Now()
	m.storeMode(w)
}

// promote the workloads whose time has come.
func (m *model) promote() {
	if m.agent.Supervising == nil {
		return
	}
	for _, c := range m.containers {
		if c.held != nil && !c.gone {
			m.countWouldDeny(c)
		}
	}
	for _, c := range m.containers {
		w := m.modeOf(c.view.WorkloadID)
		w.name = c.view.WorkloadName
		if w.set != api.ModeAuto || c.gone {
			continue
		}
		switch w.now {
		case api.ModeLearn:
			if c.view.Settled.Settled && len(c.view.Partial) == 0 {
				m.enter(w, api.ModeShadow, fmt.Sprintf("it has settled; nothing is refused, and what would be is counted for %s",
					m.agent.Supervising.ShadowTime))
			}
		case api.ModeShadow:
			if c.held != nil && m.agent.Now().Sub(later(w.shadowSince, c.held.since)) >= m.agent.Supervising.ShadowTime {
				m.enter(w, api.ModeEnforce, fmt.Sprintf("for %s nothing would have been refused", m.agent.Supervising.ShadowTime))
			}
		}
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// state of a workload's mode for people and programs.
func (m *model) modeState(w *workloadMode) api.ModeState {
	s := api.ModeState{
		Workload: w.id, Name: w.name, Mode: w.set, Now: w.now, Since: w.since, Set: w.by, Why: w.why,
		ShadowSince: w.shadowSince, WouldDeny: w.wouldDeny,
	}
	if w.set != api.ModeAuto {
		return s
	}
	switch w.now {
	case api.ModeLearn:
		s.Next = "waits until it settles in a run that missed nothing"
	case api.ModeShadow:
		s.Next = "waits for a container that runs under the filter"
		for _, c := range m.containers {
			if c.view.WorkloadID == w.id && c.held != nil {
				left := m.agent.Supervising.ShadowTime - m.agent.Now().Sub(later(w.shadowSince, c.held.since))
				s.Next = fmt.Sprintf("%s more of shadow without a would-deny", max(left, 0).Round(time.Second))
			}
		}
	}
	return s
}

// Modes of the workloads that have a policy or run, or of one.
func (a *Agent) Modes(ctx context.Context, ref string) (all []api.ModeState, err error) {
	known, err := a.Store.Workloads(ctx)
	if err != nil {
		return nil, err
	}
	only := ""
	if ref != "" {
		if only, _, err = a.resolve(ctx, ref); err != nil {
			return nil, err
		}
	}
	err = a.ask(ctx, func(m *model) error {
		for _, w := range known {
			m.modeOf(w.ID).name = w.Name
		}
		for _, id := range slices.Sorted(maps.Keys(m.modes)) {
			if only == "" || only == id {
				all = append(all, m.modeState(m.modes[id]))
			}
		}
		return nil
	})
	return all, err
}

// resolve a workload's reference to its ID and name.
func (a *Agent) resolve(ctx context.Context, ref string) (id, name string, err error) {
	p, err := a.Store.Policy(ctx, ref)
	if err == nil {
		return p.Workload.ID(), p.Workload.Name(), nil
	}
	if !errors.Is(err, api.ErrNotFound) {
		return "", "", err
	}
	// One that runs for the first time has no policy yet.
	askErr := a.ask(ctx, func(m *model) error {
		for _, c := range m.containers {
			if c.view.WorkloadID == ref || c.view.WorkloadName == ref || c.view.Name == ref {
				id, name = c.view.WorkloadID, c.view.WorkloadName
			}
		}
		return nil
	})
	if askErr != nil || id == "" {
		return "", "", errors.Join(askErr, err)
	}
	return id, name, nil
}

// SetMode of a workload.
func (a *Agent) SetMode(ctx context.Context, by api.Peer, c api.ModeChange) (s api.ModeState, err error) {
	if !slices.Contains(api.WorkloadModes, c.Mode) {
		return s, fmt.Errorf("%w: there is no mode %q", api.ErrInvalid, c.Mode)
	}
	if a.Supervising == nil && c.Mode != api.ModeLearn && c.Mode != api.ModeOff {
		return s, fmt.Errorf("%w: this agent does not supervise", api.ErrInvalid)
	}
	id, name, err := a.resolve(ctx, c.Workload)
	if err != nil {
		return s, err
	}
	err = a.ask(ctx, func(m *model) error {
		w := m.modeOf(id)
		w.name, w.set, w.by, w.why = name, c.Mode, cmpOr(c.By, "root"), c.Why
		next := firstStep(c.Mode)
		if c.Mode == api.ModeAuto && w.now == api.ModeShadow {
			next = w.now
		}
		m.enter(w, next, "set by "+w.by)
		m.storeMode(w)
		s = m.modeState(w)
		return nil
	})
	return s, err
}
