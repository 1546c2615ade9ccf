// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/loop"
	"github.com/whittle-sec/whittle/internal/renew"
)

// renewing is an agent with a mover that notes what it is asked for.
func renewing(t *testing.T, auto bool, now *atomic.Int64, asked chan renew.Request, answer func() (renew.Result, error), also ...func(*Config)) *rig {
	t.Helper()
	keep := supervising(t, api.ModeLearn, 0)
	return start(t, func(c *Config) {
		keep(c)
		c.Now = func() time.Time { return time.Unix(0, now.Load()) }
		c.Moving = &Moving{
			Makers: map[string]engine.Maker{"podman": newEngines("web")}, Limits: loop.Defaults(), Renew: auto,
			Move: func(_ context.Context, _ string, q renew.Request, _ func(renew.Done)) (renew.Result, error) {
				asked <- q
				return answer()
			},
			Recover: func(context.Context, string, ...string) ([]renew.Result, bool, error) {
				return []renew.Result{{Container: "cut", Predecessor: "9", Outcome: renew.RolledBack, Why: "it was cut off"}}, false, nil
			},
		}
		for _, f := range also {
			f(c)
		}
	})
}

// want a renewal of a container, and turn the model.
func (r *rig) want(id, why string, after time.Duration, now *atomic.Int64) {
	r.t.Helper()
	err := r.ask(r.t.Context(), func(m *model) error {
		c := m.containers[key{"podman", id}]
		m.wantRenewal(c, why)
		now.Add(int64(after))
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
}

// What a reboot cut off is finished or undone when the agent starts, and told.
func TestRenewalsAreRecovered(t *testing.T) {
	var now atomic.Int64
	now.Store(time.Now().UnixNano())
	r := renewing(t, false, &now, make(chan renew.Request), nil)
	until(r.journaled("cut: rolled-back (it was cut off)"))
}

func TestRenewals(t *testing.T) {
	var now atomic.Int64
	now.Store(time.Now().UnixNano())
	asked := make(chan renew.Request, 8)
	let := make(chan struct{})
	r := renewing(t, false, &now, asked, func() (renew.Result, error) {
		<-let
		return renew.Result{Outcome: renew.Renewed, Strategy: renew.Overlap, Gap: time.Millisecond}, nil
	})
	for id, label := range map[string]string{"1": "auto", "2": "", "3": "never", "4": "auto"} {
		pid, _ := sleeper(t)
		reg := registration(id, pid)
		reg.Container.Labels = map[string]string{RenewKey: label}
		if err := r.client.Register(t.Context(), reg); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range []string{"1", "2", "3"} {
		r.want(id, "a call is hot", 0, &now)
	}
	if len(asked) != 0 {
		t.Error("at once: more reasons may come")
	}
	r.want("1", "another call is hot", renewAfter, &now)
	if q := <-asked; q.Container != "1" || q.Retire != renew.RetireRemove || q.Changes.Seccomp != "" {
		t.Errorf("asked for %+v", q)
	}
	// Never two at a time, and those that were not to be renewed are only told of.
	r.want("4", "a call is hot", renewAfter, &now)
	until(r.journaled("whittle renew web-2"))
	until(r.journaled("whittle renew web-3"))
	if len(asked) != 0 {
		t.Errorf("a second one at the same time: %+v", <-asked)
	}
	let <- struct{}{}
	if q := <-asked; q.Container != "4" {
		t.Errorf("asked for %+v", q)
	}
	let <- struct{}{}
	until(r.journaled("web-1: renewed (a call is hot; another call is hot) by overlap"))
	until(r.journaled("web-4: renewed"))
	// At most once an hour.
	r.want("1", "again", renewAfter, &now)
	r.want("1", "again", renewEvery/2, &now)
	if err := r.ask(t.Context(), func(m *model) error { m.renewDue(); m.renewDue(); return nil }); err != nil || len(asked) != 0 {
		t.Errorf("within the hour: %v", err)
	}
	now.Add(int64(renewEvery))
	if q := <-asked; q.Container != "1" {
		t.Errorf("asked for %+v", q)
	}
	close(let)
	if slices.ContainsFunc(r.store.texts(), func(s string) bool { return strings.Contains(s, "web-2: renewed") }) {
		t.Error("a container was renewed that nobody said it of")
	}
}

func TestRenewalFails(t *testing.T) {
	var now atomic.Int64
	now.Store(time.Now().UnixNano())
	asked := make(chan renew.Request, 8)
	r := renewing(t, true, &now, asked, func() (renew.Result, error) { return renew.Result{}, errors.New("the engine is away") })
	pid, _ := sleeper(t)
	if err := r.client.Register(t.Context(), registration("1", pid)); err != nil {
		t.Fatal(err)
	}
	r.want("1", "a call is hot", renewAfter, &now)
	<-asked
	until(r.journaled("web-1 could not be renewed (a call is hot): the engine is away"))
}
