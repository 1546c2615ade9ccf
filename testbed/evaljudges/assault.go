// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/judge"
	"github.com/whittle-sec/whittle/testbed/services"
)

// Attack is what an intruder does from inside a service that is enforced.
type Attack struct {
	Name    string // "shellcode in anonymous memory: connect"; no two of a service have the same
	Kind    string // by which the report counts: "injected code", "code reuse", "command injection", "namespaces", "poisoner" …
	Doc     string
	Service string // that it is done to: its name in testbed/services
	// Learning attacks are done while the service is learned from, where everything succeeds, in every one of its training
	// runs, and again when it is enforced. Only the latter counts.
	Learning bool
	// Do it, and say what was tried. An error is for what could not be tried at all.
	Do func(context.Context, *Target) ([]Attempt, error)
}

// Target of an attack: the running container and its agent.
type Target struct {
	*services.Instance
	Client   *api.Client
	Learning bool // the service is being learned from
}

// Attempt is a call that an attack needs and made. Whether it was refused is told by the agent's count of refusals; Errno is what
// the caller saw, 0 for success.
type Attempt struct {
	Call  string
	Errno unix.Errno
	// Note of what is told apart by arguments or memory, for the report.
	Note string `json:",omitempty"`
}

// attackResult is what became of an attack.
type attackResult struct {
	Attack, Kind, Doc string
	Learning          bool           `json:",omitempty"`
	Problem           string         `json:",omitempty"` // why it could not be tried
	Tried             []tried        `json:",omitempty"`
	Cases             []judge.Case   `json:",omitempty"`
	Refused           []api.HeldLine `json:",omitempty"`
}

// tried is an attempt and what became of it.
type tried struct {
	Attempt
	Veto    bool   `json:",omitempty"` // the call is one of those that never pass
	Refused bool   `json:",omitempty"`
	How     string // in words: "the panel", "the filter", "allowed by the policy"
}

// attacked does all attacks that are for the service.
func (s *subject) attacked(ctx context.Context, o options, r *serviceResult) {
	for _, a := range attacks() {
		if a.Service != s.Name || !chosenAttack(o.attacks, a.Name) || ctx.Err() != nil {
			continue
		}
		res := attackResult{Attack: a.Name, Kind: a.Kind, Doc: a.Doc, Learning: a.Learning}
		if err := s.attack(ctx, a, &res); err != nil {
			res.Problem = err.Error()
		}
		s.say("attack: %s", res.line())
		r.Attacks = append(r.Attacks, res)
	}
}

func chosenAttack(words, name string) bool {
	return slices.ContainsFunc(strings.Split(words, ","), func(w string) bool { return strings.Contains(name, w) })
}

// attack once, in a new container.
func (s *subject) attack(ctx context.Context, a Attack, res *attackResult) error {
	if a.Learning {
		poisoned := &subject{Service: s.Service, whittle: s.whittle, corpus: s.corpus}
		err := poisoned.train(ctx, &serviceResult{}, func(ctx context.Context, i *services.Instance) error {
			_, err := a.Do(ctx, &Target{Instance: i, Learning: true})
			return err
		})
		if poisoned.trained != "" {
			defer (&guard{dir: poisoned.trained}).remove()
		}
		if err != nil {
			return err
		}
		s = poisoned
	}
	e, err := s.enforce(ctx)
	if err != nil {
		return err
	}
	defer func() {
		if err := e.end(); err != nil {
			s.say("%v", err)
		}
	}()
	if err := s.load(ctx, e.Instance); err != nil {
		return err
	}
	if s.runs {
		if err := e.settled(ctx); err != nil {
			return err
		}
	}
	if _, err := e.guard.news(ctx); err != nil {
		return err
	}
	before, err := e.guard.container(ctx, e.ID)
	if err != nil {
		return err
	}
	made, err := a.Do(ctx, &Target{Instance: e.Instance, Client: e.guard.client})
	n, journal := e.guard.news(ctx)
	if journal != nil {
		return journal
	}
	res.Cases, res.Refused = n.Cases, n.Refused
	if err != nil {
		return err
	}
	after, err := e.guard.container(ctx, e.ID)
	if err != nil {
		return err
	}
	res.Tried = outcomes(made, refusals(before), refusals(after), n)
	return nil
}

// refusals that the agent has counted, by call.
func refusals(c api.Container) map[string]uint64 {
	out := map[string]uint64{}
	if c.Supervision != nil {
		for _, l := range c.Supervision.Refusals {
			if !l.Shadow {
				out[l.Call] += l.Count
			}
		}
	}
	return out
}

// outcomes of what was tried. A call was refused if the agent counts as many refusals more as it was tried; or if it failed as
// what no filter lets pass fails, with ENOSYS.
func outcomes(made []Attempt, before, after map[string]uint64, n news) (out []tried) {
	left := map[string]uint64{}
	for call, count := range after {
		left[call] = count - before[call]
	}
	for _, a := range made {
		t := tried{Attempt: a, Veto: vetoed(a.Call)}
		switch {
		case a.Errno != 0 && left[a.Call] > 0:
			left[a.Call]--
			t.Refused, t.How = true, "refused when it was held"
		case a.Errno == unix.ENOSYS:
			t.Refused, t.How = true, "refused by the filter"
		default:
			t.How = "let through by what was learned"
			for _, c := range n.Cases {
				if c.Question.Call.String() == a.Call && allowed(c) {
					t.How = "let through by the panel"
				}
			}
		}
		out = append(out, t)
	}
	return out
}

func (r attackResult) line() string {
	var s strings.Builder
	s.WriteString(r.Attack + ":")
	for _, t := range r.Tried {
		s.WriteString(fmt.Sprintf(" %s %s (%v);", t.Call, t.How, t.Errno))
	}
	if r.Problem != "" {
		s.WriteString(" could not be tried: " + r.Problem)
	}
	return s.String()
}
