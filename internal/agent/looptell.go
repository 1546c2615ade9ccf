// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/loop"
)

var _ api.LoopTeller = (*Agent)(nil)

// tell a step of the loop under way, or of the last.
func (d *driver) tell(text string) {
	d.mu.Lock()
	record, ok := d.machine.Record()
	record.Workload, record.Lost = d.id, d.site.Lost
	d.mu.Unlock()
	if ok {
		text = fmt.Sprintf("time loop %d: %s", record.ID, text)
	}
	d.tellOf(record, text)
}

// tellOf a loop, or of the workload for the zero record.
func (d *driver) tellOf(record loop.Record, text string) {
	name := cmpOr(d.where().Name, d.workload.Name())
	data := recordData(record)
	_ = d.agent.ask(context.Background(), func(m *model) error {
		m.workloadEvent(kindLoop, d.id, name+": "+text)
		e := &m.events[len(m.events)-1]
		e.Container = name
		if record.ID != 0 {
			e.Call, e.Data = record.CauseKey.Call.String(), data
		}
		return nil
	})
}

// recordData is a record, with the report as short as a row of the journal must be.
func recordData(r loop.Record) json.RawMessage {
	for limit := maxCaseData / 2; limit > 0; limit /= 2 {
		if r.Report != nil && len(r.Report.Text) > limit {
			short := *r.Report
			short.Text = strings.ToValidUTF8(short.Text[:limit], "") + " …"
			r.Report = &short
		}
		data, err := json.Marshal(r)
		if err != nil {
			return nil // strings and numbers only
		}
		if len(data) <= maxCaseData {
			return data
		}
		r.Calls, r.Dropped = r.Calls[:min(len(r.Calls), limit/64)], r.Dropped[:min(len(r.Dropped), limit/64)]
	}
	return nil
}

// keyNames without repetitions, in the order of their names.
func keyNames(keys []loop.Key) string {
	var names []string
	for _, k := range keys {
		names = append(names, k.Call.String())
	}
	slices.Sort(names)
	return strings.Join(slices.Compact(names), ", ")
}

// Loops of all workloads that have an oracle, or of one.
func (a *Agent) Loops(ctx context.Context, ref string) ([]api.LoopState, error) {
	all, err := a.twinsNamed(ctx, ref)
	if err != nil {
		return nil, err
	}
	states := make([]api.LoopState, 0, len(all))
	for _, t := range all {
		s := t.state()
		if err := a.ask(ctx, func(m *model) error { m.fillLoop(t, &s); return nil }); err != nil {
			return nil, err
		}
		states = append(states, s)
	}
	return states, nil
}

func (t *twin) state() api.LoopState {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.agent.Now()
	s := api.LoopState{
		Workload: t.id, Name: t.workload.Name(), Status: t.machine.Status(now), Container: t.site.Name,
		Limits: t.agent.limits(t.spec),
	}
	if t.problem != "" {
		s.Problems = []string{t.problem}
	}
	record, ok := t.machine.Record()
	if !ok || t.machine.State() == loop.Production {
		return s
	}
	s.Since, s.Cause, s.Calls, s.Oracle = record.Started, record.Cause, record.Calls, t.site.OracleName
	if !record.Served.IsZero() {
		s.Since = record.Served
	}
	switch t.machine.State() {
	case loop.ToOracle:
		s.Next = "the oracle takes production's place"
	case loop.InOracle:
		s.Next = fmt.Sprintf("production comes back when nothing new was asked for during %s", s.Limits.Quiet.Round(time.Second))
	default:
		s.Next = "production comes back"
	}
	return s
}

// fillLoop with what the model knows of the containers.
func (m *model) fillLoop(t *twin, s *api.LoopState) {
	for _, c := range m.containers {
		if c.view.WorkloadID == t.id && !c.gone && c.oracleOf == nil {
			s.Container = c.view.Name
		}
	}
}

// LoopHistory of a workload, or of all.
func (a *Agent) LoopHistory(ctx context.Context, ref string, limit int) ([]api.LoopRecord, error) {
	id := ""
	if ref != "" {
		var err error
		if id, _, err = a.resolve(ctx, ref); err != nil {
			return nil, err
		}
	}
	rows, err := a.Store.LoopRecords(ctx, id, limit)
	if err != nil {
		return nil, err
	}
	all := make([]api.LoopRecord, 0, len(rows))
	for _, row := range slices.Backward(rows) { // the newest is first
		var r api.LoopRecord
		if err := json.Unmarshal(row.Record, &r); err != nil {
			return nil, fmt.Errorf("read time loop %d of %s: %w", row.ID, row.Workload, err)
		}
		all = append(all, r)
	}
	return all, nil
}
