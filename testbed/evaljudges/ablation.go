// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/whittle-sec/whittle/internal/corpus"
	"github.com/whittle-sec/whittle/internal/judge"
	"github.com/whittle-sec/whittle/internal/policy"
)

// trialOf is one thing that was done to a service: what the panel was asked about meanwhile.
type trialOf struct {
	panel *judge.Panel // as of the start of enforcement
	cases []judge.Case
}

// passes tells whether a panel lets all of its cases through.
func (t trialOf) passes(change func(*judge.Panel) *judge.Panel) bool {
	p := change(t.panel)
	for _, c := range t.cases {
		if p.Decide(c.Question, c.Evidence).Verdict < judge.Once {
			return false
		}
	}
	return true
}

// refused is how many of its cases a panel does not let through.
func (t trialOf) refused(change func(*judge.Panel) *judge.Panel) (n int) {
	p := change(t.panel)
	for _, c := range t.cases {
		if p.Decide(c.Question, c.Evidence).Verdict < judge.Once {
			n++
		}
	}
	return n
}

// ablated is what a panel of other judges makes of the recorded cases.
type ablated struct {
	Panel    string
	Accepted int // rare operations all of whose cases pass
	Refused  int // cases of attacks
}

// ablate replays recorded cases before panels of fewer judges.
func ablate(legitimate, attacks []trialOf) (out []ablated) {
	one := func(name string, change func(*judge.Panel) *judge.Panel) {
		a := ablated{Panel: name}
		for _, t := range legitimate {
			if t.passes(change) {
				a.Accepted++
			}
		}
		for _, t := range attacks {
			a.Refused += t.refused(change)
		}
		out = append(out, a)
	}
	one("all judges", func(p *judge.Panel) *judge.Panel { return p })
	for _, name := range judge.Names {
		one("without "+name, func(p *judge.Panel) *judge.Panel { return p.Without(name) })
	}
	for _, name := range judge.Names {
		one(name+" alone", func(p *judge.Panel) *judge.Panel { return p.Only(name) })
	}
	for _, name := range judge.Names {
		if name != "origin" && name != "risk" {
			one(name+" with origin and risk", func(p *judge.Panel) *judge.Panel { return p.Only(name, "origin", "risk") })
		}
	}
	return out
}

// panelsOf results: the trials of every service, with the panel that it had when enforcing began.
func panelsOf(rs *results) (legitimate, attacks []trialOf, err error) {
	all, err := corpus.Shipped()
	if err != nil {
		return nil, nil, err
	}
	for _, r := range rs.Services {
		if len(r.Policy) == 0 {
			continue
		}
		var p policy.Policy
		if err := p.UnmarshalJSON(r.Policy); err != nil {
			return nil, nil, fmt.Errorf("the policy of %s: %w", r.Service, err)
		}
		panel := judge.New(p, all.Without(r.LeftOut...).Rules())
		for _, op := range r.Ops {
			if byNature(r.Service+"/"+op.Op) == "" && len(asked(op.Cases)) > 0 {
				legitimate = append(legitimate, trialOf{panel, asked(op.Cases)})
			}
		}
		for _, a := range r.Attacks {
			if cases := a.malicious(); len(cases) > 0 && !a.Learning {
				attacks = append(attacks, trialOf{panel, cases})
			}
		}
	}
	return legitimate, attacks, nil
}

// malicious cases: of the calls that the attack tried, and not what the service did for itself meanwhile.
func (r attackResult) malicious() (out []judge.Case) {
	for _, c := range r.Cases {
		for _, t := range r.Tried {
			if t.Call == c.Question.Call.String() {
				out = append(out, c)
				break
			}
		}
	}
	return out
}
