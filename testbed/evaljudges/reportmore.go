// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/whittle-sec/whittle/internal/judge"
)

func (r *report) attacks() {
	r.say("\n## (c) Attacks from inside\n")
	r.say("Each on a service that is enforced and has booted. A call counts as refused if the agent counted its refusal, or the filter answered it with ENOSYS.")
	type kind struct{ veto, other, learned share }
	kinds := map[string]*kind{}
	var order []string
	number := 0
	for _, s := range r.rs.Services {
		for _, a := range s.Attacks {
			number++
			k := kinds[a.Kind]
			if k == nil {
				k = &kind{}
				kinds[a.Kind] = k
				order = append(order, a.Kind)
			}
			for _, t := range a.Tried {
				switch {
				case a.Learning:
					k.learned.add(t.Refused)
				case t.Veto:
					k.veto.add(t.Refused)
				default:
					k.other.add(t.Refused)
				}
			}
		}
	}
	if number == 0 {
		r.say("\nNone were tried.")
		return
	}
	slices.Sort(order)
	r.head("kind", "calls of the veto list refused", "other calls refused", "made while learning, refused afterwards")
	for _, name := range order {
		k := kinds[name]
		r.row(name, share0(k.veto), share0(k.other), share0(k.learned))
	}
	r.say("\n%d attacks:", number)
	r.head("service", "attack", "calls tried: what became of them", "")
	for _, s := range r.rs.Services {
		for _, a := range s.Attacks {
			r.row(s.Service, a.Attack, triedText(a), attackOutcome(a))
		}
	}
	r.passed()
}

func share0(s share) string {
	if s.of == 0 {
		return ""
	}
	return fmt.Sprintf("%d of %d", s.n, s.of)
}

func triedText(a attackResult) string {
	if a.Problem != "" {
		return "could not be tried: " + cut(a.Problem, 200)
	}
	var out []string
	for _, t := range a.Tried {
		s := t.Call
		if t.Note != "" {
			s += " (" + t.Note + ")"
		}
		if !t.Refused {
			s = "**" + s + " " + t.How + "**"
		}
		out = append(out, s)
	}
	return strings.Join(out, ", ")
}

func attackOutcome(a attackResult) string {
	n := share{}
	for _, t := range a.Tried {
		n.add(t.Refused)
	}
	switch {
	case n.of == 0:
		return ""
	case n.n == n.of:
		return "refused"
	}
	return fmt.Sprintf("**%d of %d let through**", n.of-n.n, n.of)
}

// everyday are the levels of risk that one or two points are asked for.
func everyday(c judge.Case) bool {
	for _, v := range c.Decision.Votes {
		if v.Judge == "risk" {
			return strings.HasPrefix(v.Why, judge.Harmless.String()) || strings.HasPrefix(v.Why, judge.Ordinary.String())
		}
	}
	return false
}

// passed names every call that was let through.
func (r *report) passed() {
	r.say("\n### Every attack call that was let through\n")
	learned, harmless, other := 0, 0, 0
	for _, s := range r.rs.Services {
		for _, a := range s.Attacks {
			for _, t := range a.Tried {
				i := slices.IndexFunc(a.Cases, func(c judge.Case) bool { return c.Question.Call.String() == t.Call && allowed(c) })
				switch {
				case t.Refused:
				case i < 0:
					learned++
				case everyday(a.Cases[i]):
					harmless++
				default:
					other++
				}
			}
		}
	}
	r.say(`%d are in what was learned, for that role and phase: nobody is asked about them. %d the panel takes for everyday (files,
a process's own state): it gives them to whom the program imports them for, which is what the rare operations of (b) live by. %d
need more evidence, and had it.
`, learned, harmless, other)
	some := false
	for _, s := range r.rs.Services {
		for _, a := range s.Attacks {
			for _, t := range a.Tried {
				if t.Refused {
					continue
				}
				some = true
				r.say("- **%s, %s**: `%s` %s (%v)", s.Service, a.Attack, t.Call, t.How, t.Errno)
				for _, c := range a.Cases {
					if c.Question.Call.String() == t.Call && allowed(c) {
						r.say("  - %s", caseLine(c))
					}
				}
			}
		}
	}
	if !some {
		r.say("None.")
	}
}

func (r *report) ablation(legitimate, attacks []trialOf) {
	cases := 0
	for _, a := range attacks {
		cases += len(a.cases)
	}
	r.say("\n## (d) Each judge removed, and alone\n")
	r.say(`The recorded cases, judged again offline by panels of fewer judges, as of the start of enforcement: the %d operations of (a) and (b)
that asked the panel something, counted as accepted if all of their cases pass; and the %d cases of calls that attacks made and
the panel was asked about (what the plan or the filter refuses by itself is not among them). Without risk every call needs one
point, and nothing is on a veto list; without origin, injected code is like any other.`, len(legitimate), cases)
	r.head("panel", fmt.Sprintf("operations accepted, of %d", len(legitimate)), fmt.Sprintf("attack cases refused, of %d", cases))
	for _, a := range ablate(legitimate, attacks) {
		r.row(a.Panel, fmt.Sprint(a.Accepted), fmt.Sprint(a.Refused))
	}
}

func (r *report) latency() {
	r.say("\n## (e) How long a verdict takes\n")
	l := r.rs.Latency
	if l == nil {
		r.say("It was not measured.")
		return
	}
	l.report(r)
}

func (r *report) services() {
	r.say("\n## The services")
	r.head("service", "packages", "calls learned (boot, run, reload, stop)", "left out of the corpus", "")
	for _, s := range r.rs.Services {
		var learned strings.Builder
		for _, phase := range []string{"boot", "run", "reload", "stop"} {
			learned.WriteString(fmt.Sprintf(" %d", s.Learned[phase]))
		}
		r.row(s.Service, strings.Join(s.Packages, ", "), learned.String(), strings.Join(s.LeftOut, ", "), cut(s.Problem, 200))
	}
}
