// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/hint"
	"github.com/whittle-sec/whittle/internal/policy"
)

// answers is an agent that says what a script wrote down, and writes down what it was asked.
type answers struct {
	api.Backend // nil: what is not below is not asked
	Stat        api.Status
	Mode        []api.ModeState
	Attached    api.AttachResult
	Granted     map[string]api.GrantResult // by call
	Policies    map[string]policy.Policy   // by workload ID
	Waits       []api.Waiting
	Settled     map[string]api.Judged // by ID; Waiting is filled in
	Journal     []api.Event
	Oracle      []api.OracleState
	Loop        []api.LoopState
	Record      []api.LoopRecord
	Error, Hint string // of everything but status
	Died        string // why the journal ended
	asked       string
}

func (f *answers) answer(question any) error {
	if question != nil {
		line, err := json.Marshal(question)
		if err != nil {
			return err
		}
		log, err := os.OpenFile(f.asked, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		defer log.Close()
		if _, err := fmt.Fprintf(log, "%s\n", line); err != nil {
			return err
		}
	}
	if f.Error != "" {
		return hint.Add(errors.New(f.Error), f.Hint)
	}
	return nil
}

func (f *answers) Status(context.Context) (api.Status, error) { return f.Stat, nil }

func (f *answers) Workloads(context.Context) (all []api.Summary, err error) {
	for id, p := range f.Policies {
		w := api.Summary{ID: id}
		for _, calls := range p.ABIs {
			w.Quarantined += len(calls.Quarantined)
		}
		all = append(all, w)
	}
	return all, nil
}

func (f *answers) PolicyVersion(_ context.Context, ref string, _ int) (policy.Policy, error) {
	p, ok := f.Policies[ref]
	if !ok {
		return p, fmt.Errorf("workload %q: %w", ref, api.ErrNotFound)
	}
	return p, nil
}

func (f *answers) Modes(_ context.Context, ref string) (all []api.ModeState, err error) {
	for _, m := range f.Mode {
		if ref == "" || ref == m.Name {
			all = append(all, m)
		}
	}
	if len(all) == 0 && ref != "" {
		return nil, fmt.Errorf("workload %q: %w", ref, api.ErrNotFound)
	}
	return all, f.answer(nil)
}

func (f *answers) SetMode(_ context.Context, _ api.Peer, c api.ModeChange) (api.ModeState, error) {
	m := f.Mode[0]
	m.Mode = c.Mode
	if m.Now = c.Mode; c.Mode == api.ModeAuto {
		m.Now = api.ModeLearn
	}
	return m, f.answer(c)
}

func (f *answers) Attach(_ context.Context, _ api.Peer, r api.AttachRequest) (api.AttachResult, error) {
	f.Attached.DryRun = r.DryRun
	return f.Attached, f.answer(r)
}

func (f *answers) Seal(_ context.Context, _ api.Peer, r api.SealRequest) (api.AttachResult, error) {
	f.Attached.DryRun = r.DryRun
	return f.Attached, f.answer(r)
}

func (f *answers) Grant(_ context.Context, _ api.Peer, g api.GrantRequest) (api.GrantResult, error) {
	return f.Granted[g.Call], f.answer(g)
}

func (f *answers) Waiting(context.Context) ([]api.Waiting, error) { return f.Waits, f.answer(nil) }

func (f *answers) Settle(_ context.Context, _ api.Peer, j api.Judgement) (api.Judged, error) {
	for _, w := range f.Waits {
		if w.ID == j.ID {
			done := f.Settled[fmt.Sprint(j.ID)]
			done.Waiting = w
			return done, f.answer(j)
		}
	}
	return api.Judged{}, errors.Join(f.answer(j), api.NotWaiting(j.ID))
}

// SetOracle answers with what the script has of that workload, and the spec that was asked for.
func (f *answers) SetOracle(_ context.Context, _ api.Peer, r api.OracleRequest) (api.OracleState, error) {
	if err := f.answer(r); err != nil {
		return api.OracleState{}, err
	}
	all, err := f.Oracles(context.Background(), r.Workload)
	if err != nil {
		return api.OracleState{}, err
	}
	all[0].Spec = r.Spec
	return all[0], nil
}

func (f *answers) Oracles(_ context.Context, ref string) (all []api.OracleState, err error) {
	for _, o := range f.Oracle {
		if ref == "" || ref == o.Name || ref == o.Workload {
			all = append(all, o)
		}
	}
	if len(all) == 0 && ref != "" {
		return nil, fmt.Errorf("oracle of %q: %w", ref, api.ErrNotFound)
	}
	return all, nil
}

func (f *answers) RemoveOracle(_ context.Context, _ api.Peer, ref string) error {
	return f.answer(map[string]string{"removed": ref})
}

func (f *answers) Loops(_ context.Context, ref string) (all []api.LoopState, err error) {
	for _, l := range f.Loop {
		if ref == "" || ref == l.Name || ref == l.Workload {
			all = append(all, l)
		}
	}
	if len(all) == 0 && ref != "" {
		return nil, fmt.Errorf("loops of %q: %w", ref, api.ErrNotFound)
	}
	return all, f.answer(nil)
}

func (f *answers) LoopHistory(_ context.Context, _ string, limit int) ([]api.LoopRecord, error) {
	return f.Record[max(0, len(f.Record)-limit):], f.answer(nil)
}

func (f *answers) Events(context.Context, api.EventQuery) ([]api.Event, error) { return nil, nil }

func (f *answers) Follow(_ context.Context, _ int64, send func(api.Event) error) error {
	for _, e := range f.Journal {
		if err := send(e); err != nil {
			return err
		}
	}
	if f.Died != "" {
		return errors.New(f.Died)
	}
	return nil
}

var agoPattern = regexp.MustCompile(`"@(-?[0-9hms]+)"`)

var casePattern = regexp.MustCompile(`"#([a-z]+)"`)

// serves FILE answers at $S until the script ends, and at once if it answered from another file before. "@90s" in the file
// is the moment of 90 seconds ago, "@-90s" that in 90 seconds, and "#connect" a case of that call (see caseOfCall).
func serves(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: serves FILE")
	}
	text := agoPattern.ReplaceAllFunc([]byte(ts.ReadFile(args[0])), func(m []byte) []byte {
		d, err := time.ParseDuration(string(m[2 : len(m)-1]))
		ts.Check(err)
		stamp, err := json.Marshal(time.Now().Add(-d))
		ts.Check(err)
		return stamp
	})
	text = casePattern.ReplaceAllFunc(text, func(m []byte) []byte {
		c, err := json.Marshal(caseOfCall(ts, "2b3c", string(m[2:len(m)-1])))
		ts.Check(err)
		return c
	})
	f := &answers{asked: ts.MkAbs("asked")}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	ts.Check(dec.Decode(f))
	l, err := api.Listen(ts.Getenv("S"))
	ts.Check(err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	s := api.Server{Backend: f, Version: "v9", Log: slog.New(slog.DiscardHandler)}
	go func() { done <- s.Serve(ctx, l) }()
	ts.Defer(func() {
		cancel()
		if err := <-done; err != nil {
			ts.Logf("serve: %v", err)
		}
	})
}
