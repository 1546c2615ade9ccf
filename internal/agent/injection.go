// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"

	"golang.org/x/net/bpf"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/filter"
	"github.com/whittle-sec/whittle/internal/inject"
	"github.com/whittle-sec/whittle/internal/plan"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/store"
	"github.com/whittle-sec/whittle/internal/syscalls"
	"github.com/whittle-sec/whittle/internal/ward"
	"github.com/whittle-sec/whittle/internal/workload"
)

// rulesFor the filter that a container gets. Filters stack, and a hold wins over an allow: what an older filter of ours
// holds must be held by the newer one too, because nobody reads the older one's listener any more.
func (a *Agent) rulesFor(ctx context.Context, s site) (*filter.Rules, error) {
	rules := s.orders.Plan.Running()
	records, err := a.Store.Supervised(ctx)
	if err != nil {
		return nil, fmt.Errorf("read which filters %s has: %w", s.view.Name, err)
	}
	for _, r := range records {
		if r.Engine != s.view.Engine || r.ID != s.view.ID || r.How == "seal" || r.How == "narrow" || r.Boot != bootID() || r.PID != 0 && r.PID != s.view.PID {
			continue
		}
		p, err := a.Store.PolicyVersion(ctx, r.Workload, r.Revision)
		if err != nil {
			return nil, fmt.Errorf("read policy %d, which %s runs under: %w", r.Revision, s.view.Name, err)
		}
		older := ward.OrdersOf(p, r.Revision, planOptions(), nil).Plan
		if r.How == "start" {
			rules = plan.Above(older.Booting(), rules)
		} else {
			rules = plan.Above(older.Running(), rules)
		}
	}
	return rules, nil
}

func (a *Agent) programFor(ctx context.Context, s site) ([]bpf.RawInstruction, error) {
	rules, err := a.rulesFor(ctx, s)
	if err != nil {
		return nil, err
	}
	return filter.Compile(rules)
}

// inject with the observer looking away: what the injector has a process call is not the container's.
func (a *Agent) inject(ctx context.Context, c *tracked, r inject.Request) (inject.Result, error) {
	tell := func(now bool) error {
		return a.ask(context.WithoutCancel(ctx), func(m *model) error {
			if c.id == 0 || c.gone {
				return nil
			}
			return m.agent.Observer.Injecting(c.id, now)
		})
	}
	if err := tell(true); err != nil {
		return inject.Result{}, err
	}
	result, err := inject.Run(ctx, a.Supervising.Exe, r)
	if tellErr := tell(false); err == nil && tellErr != nil {
		result.Problems = append(result.Problems, tellErr.Error())
	}
	return result, err
}

// sideEffect of an attach that nobody asked for: the kernel takes a filter from a process without privileges only with
// no_new_privs, and then no program that it executes gains privileges by setuid bits or file capabilities. A service that
// executes programs while it runs might need that.
func (s site) sideEffect() error {
	executes := false
	for abi, calls := range s.orders.Policy.ABIs {
		for _, name := range []string{"execve", "execveat"} {
			nr, ok := syscalls.Number(abi, name)
			executes = executes || ok && (calls.Phases[policy.Run].Has(nr) || calls.Phases[policy.Reload].Has(nr) || calls.Phases[policy.Stop].Has(nr))
		}
	}
	if !executes {
		return nil
	}
	report, err := inject.Survey(s.request, func(syscalls.Call) bool { return true })
	if err != nil {
		return err
	}
	for _, p := range report.Processes {
		if p.SetsNoNewPrivs {
			return fmt.Errorf("it executes programs while it runs, and attaching would set no_new_privs, with which none of them gains "+
				"privileges; if that does not matter: whittle attach %s", s.view.Name)
		}
	}
	return nil
}

func recordOf(s site, how string) store.Supervised {
	return store.Supervised{
		Engine: s.view.Engine, ID: s.view.ID, Name: s.view.Name, Workload: s.view.WorkloadID, PID: s.view.PID,
		Started: startOf(s.view.PID), Boot: bootID(), How: how, Revision: s.orders.Revision,
		Fingerprint: fingerprint(s.request.Program),
	}
}

// fill in what was done to each process.
func fill(out *api.AttachResult, r inject.Result) {
	for _, p := range r.Processes {
		out.Processes = append(out.Processes, api.AttachedProcess{
			PID: p.PID, Comm: commOf(p.PID), Threads: p.Threads, How: p.How, NoNewPrivileges: p.NoNewPrivs, Pause: p.Pause, Problem: p.Err,
		})
		if p.Listener >= 0 {
			out.Listeners++
		}
		out.Listeners += len(p.More)
	}
	out.Paused, out.Complete = r.Frozen, r.Complete
	for _, p := range r.Processes {
		if r.Frozen == 0 {
			out.Paused += p.Pause // one after the other: the others serve meanwhile
		}
	}
	out.Warnings = append(out.Warnings, r.Problems...)
}

// survey says what an injection would do.
func (a *Agent) survey(s site, rules *filter.Rules, out api.AttachResult) (api.AttachResult, error) {
	report, err := inject.Survey(s.request, func(call syscalls.Call) bool {
		t := rules.Tables[call.ABI]
		return t != nil && call.Nr < syscalls.MaxNr && t.Actions[call.Nr] != filter.Errno(uint16(policy.ENOSYS))
	})
	if err != nil {
		return out, err
	}
	out.Complete = true
	for _, p := range report.Processes {
		ap := api.AttachedProcess{
			PID: p.PID, Comm: workload.Printable(p.Comm, 16), Threads: len(p.Threads), How: p.How, NoNewPrivileges: p.SetsNoNewPrivs,
		}
		if !p.Works {
			ap.Problem, out.Complete = p.Problem, false
		}
		for _, t := range p.Threads {
			if t.Refused {
				out.Warnings = append(out.Warnings, fmt.Sprintf("thread %d of %s waits in %s, which the filter would refuse when it goes on",
					t.TID, ap.Comm, t.Call))
			}
		}
		out.Processes = append(out.Processes, ap)
	}
	out.Warnings = append(out.Warnings, report.Problems...)
	return out, nil
}
