// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/bpf"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/holder"
	"github.com/whittle-sec/whittle/internal/inject"
	"github.com/whittle-sec/whittle/internal/store"
)

// settleIn is how long after its start an agent waits at most for a holder before it compares the record with what it has,
// and how long a container has been supervised before its filters are looked at.
const settleIn = 5 * time.Second

// readRecords of the containers that an earlier agent supervised.
func (m *model) readRecords(ctx context.Context) error {
	all, err := m.agent.Store.Supervised(ctx)
	if err != nil {
		return fmt.Errorf("read what is supervised: %w", err)
	}
	for _, r := range all {
		if r.Boot == bootID() && r.State == store.Done && (r.How == "start" || r.How == "attach") {
			m.records[key{r.Engine, r.ID}] = r
		}
	}
	return nil
}

// reconcile the record with the kernel after a start: what ended is put down, and a container whose listeners died with
// its holder gets a new filter with a new one, which takes over.
func (a *Agent) reconcile(ctx context.Context) {
	for began := a.Now(); a.Now().Sub(began) < settleIn && ctx.Err() == nil; wait(ctx, 50*time.Millisecond) {
		ready := false
		if a.ask(ctx, func(m *model) error { ready = m.hadHolder; return nil }) != nil || ready {
			break
		}
	}
	records, err := a.Store.Supervised(ctx)
	if err != nil {
		_ = a.ask(ctx, func(m *model) error {
			m.problem("record", fmt.Sprintf("what an earlier agent supervised cannot be read, so what it lost is not recovered: %v", err))
			return nil
		})
		return
	}
	latest := map[key]store.Supervised{}
	for _, r := range records {
		a.decide(ctx, r)
		if r.How == "start" || r.How == "attach" {
			latest[key{r.Engine, r.ID}] = r
		}
	}
	for k, r := range latest {
		if ctx.Err() != nil {
			return
		}
		a.reconcileOne(ctx, k, r)
	}
}

// decide about a change that an earlier agent intended, and had no time to confirm or to abandon: the kernel knows.
func (a *Agent) decide(ctx context.Context, r store.Supervised) {
	if r.State != store.Intended || r.PID == 0 || !r.Updated.Before(a.started) || startOf(r.PID) != r.Started {
		return
	}
	found, err := inject.Attest(ctx, a.Supervising.Exe, []int{r.PID})
	if err != nil || len(found) != 1 || found[0].Err != "" {
		return // it counts as done, where that is the stricter thing
	}
	if slices.ContainsFunc(found[0].Filters, func(p []bpf.RawInstruction) bool { return fingerprint(p) == r.Fingerprint }) {
		err = a.Store.ConfirmSupervision(ctx, r.Seq, r.PID, r.Started)
	} else {
		err = a.Store.AbandonSupervision(ctx, r.Seq)
	}
	if err != nil {
		a.Log.Error("decide about a record", "container", r.ID, "err", err)
	}
}

func (a *Agent) reconcileOne(ctx context.Context, k key, r store.Supervised) {
	alive := r.Boot == bootID() && r.PID > 0 && startOf(r.PID) == r.Started && r.Started != 0
	var held bool
	err := a.ask(ctx, func(m *model) error {
		held = len(m.strangers[r.ID]) > 0 // they are introduced in a moment
		if c := m.containers[k]; c != nil && !c.gone {
			held = held || len(c.waiting) > 0 || c.held != nil && c.held.supervisor.Listeners(c.held.handle) > 0
			alive = alive || c.held != nil
		}
		return nil
	})
	switch {
	case err != nil || held:
		return
	case r.State == store.Intended && !r.Updated.Before(a.started):
		return // this agent is at it
	case !alive && r.PID == 0 && time.Since(r.Updated) < time.Minute:
		return // it is starting
	case !alive:
		if err := a.Store.EndSupervision(ctx, r.Engine, r.ID); err != nil {
			a.Log.Error("end a record", "container", r.ID, "err", err)
		}
		return
	}
	a.recover(ctx, k, r)
}

// recover a container that runs under a filter whose listeners are lost: its held calls fail with ENOSYS until then.
func (a *Agent) recover(ctx context.Context, k key, r store.Supervised) {
	registration, err := a.stranger(holder.Kept{Container: r.ID, PID: r.PID, Injected: true})
	if err == nil {
		err = a.ask(ctx, func(m *model) error { return m.register(registration, 0, true) })
	}
	if err != nil {
		_ = a.ask(ctx, func(m *model) error {
			m.problem("record", fmt.Sprintf("%s is no longer supervised and cannot be again: %v", r.Name, err))
			return nil
		})
		return
	}
	_ = a.ask(ctx, func(m *model) error {
		if c := m.containers[k]; c != nil {
			text := "the listeners of %s died with the holder: what it asked for was refused with ENOSYS; a new filter takes over"
			if r.State == store.Intended {
				text = "the agent ended while %s was brought under its filter: it is done again"
			}
			m.event(kindProblem, c, fmt.Sprintf(text, c.view.Name))
			delete(m.records, k)
			m.bringUnder(c, true)
		}
		return nil
	})
}

// kickStuck threads of a container, whose notifications an agent that was killed has taken along: interrupted, they ask
// again. Those who have asked this agent ask it once more, which does no harm.
func (a *Agent) kickStuck(ctx context.Context, c *tracked, view api.Container) {
	r, err := requestFor(view)
	if err != nil {
		return // it has just ended
	}
	var all []int
	for _, pid := range processesOf(r) {
		all = append(all, waitingThreads(pid)...)
	}
	if len(all) == 0 {
		return
	}
	if err := inject.Kick(ctx, a.Supervising.Exe, all); err != nil {
		_ = a.ask(ctx, func(m *model) error {
			m.event(kindProblem, c, fmt.Sprintf("%s: %d threads wait for an agent that was killed and cannot be woken: %v",
				view.Name, len(all), err))
			return nil
		})
	}
}

// waitingThreads of a process: those that sleep in seccomp, waiting for an answer.
func waitingThreads(pid int) (tids []int) {
	dir := "/proc/" + strconv.Itoa(pid) + "/task/"
	threads, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	for _, t := range threads {
		where, err := os.ReadFile(dir + t.Name() + "/wchan")
		if err != nil || !strings.Contains(string(where), "seccomp") {
			continue
		}
		if tid, err := strconv.Atoi(t.Name()); err == nil {
			tids = append(tids, tid)
		}
	}
	return tids
}
