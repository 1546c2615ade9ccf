// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/judge"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/testbed/document"
)

// verdicts of cases, in words, each once.
func verdicts(cases []judge.Case) (out []string) {
	seen := map[string]bool{}
	for _, c := range cases {
		s := fmt.Sprintf("%s %s", c.Question.Call, c.Decision.Verdict)
		if !seen[s] {
			seen[s] = true
			out = append(out, s)
		}
	}
	slices.Sort(out)
	return out
}

// report is written piece by piece.
type report struct {
	bytes.Buffer
	rs *results
	c  counts
}

func (r *report) say(format string, args ...any) { fmt.Fprintf(r, format+"\n", args...) }

// cell of a table may hold what it wants.
func cell(s string) string {
	return strings.ReplaceAll(strings.ReplaceAll(strings.Join(strings.Fields(s), " "), "|", "\\|"), "<", "&lt;")
}

func (r *report) row(cells ...string) {
	for i := range cells {
		cells[i] = cell(cells[i])
	}
	r.say("| %s |", strings.Join(cells, " | "))
}

func (r *report) head(cells ...string) {
	r.say("")
	r.row(cells...)
	r.say("|%s", strings.Repeat("---|", len(cells)))
}

func writeReport(name string, rs *results) error {
	if name == "" {
		return nil
	}
	text, err := makeReport(rs)
	if err != nil {
		return err
	}
	return document.Write(name, "`make eval-judges`", string(text))
}

func makeReport(rs *results) ([]byte, error) {
	r := &report{rs: rs, c: count(rs)}
	r.opening()
	r.bars()
	r.table1()
	r.operations()
	r.failures()
	r.ownLives()
	r.attacks()
	legitimate, attacks, err := panelsOf(rs)
	if err != nil {
		return nil, err
	}
	r.ablation(legitimate, attacks)
	r.latency()
	r.services()
	return r.Bytes(), nil
}

func (r *report) opening() {
	r.say("Made by `make eval-judges` (`testbed/evaljudges`) on %s; %s. The runs that it comes from:\n", r.rs.Kernel, strings.Join(r.rs.Tools, "; "))
	for _, run := range r.rs.Runs {
		r.say("- %s", run)
	}
	r.say("")
	r.say(`Each service is a package of Debian, unmodified, in an OCI container of crun's under Docker's default profile and capabilities.
It is learned from for %d lives, each its start, %d times its load, and its stop: none of its rare operations. Then its
policy is enforced, without a person to ask, and each rare operation is done in a container of its own, under an agent that
knows what the training taught and nothing more. An operation is accepted if its own verification passes **and** no call of
the service's was refused for it. What the panel knows of other services leaves this one out, and all that come from the
same packages. There are no replicas, so the fleet judge is silent throughout.

A call is absent from training if the plan refuses it in the phase, role and birth in which it comes; where a call was seen in a
boot and is needed by a reload, the plan itself may give it. What Docker's default profile refuses (clone3, with ENOSYS), a
service was refused in its training, too: the same answer is no refusal here.`, trainings, trainingLoads)
}

func met(ok bool) string {
	if ok {
		return "met"
	}
	return "**missed**"
}

func (r *report) bars() {
	c := r.c
	r.say("\n## In brief")
	r.head("", "result", "bar", "")
	r.row("operations of Optimus's Table 1 accepted", c.table1.String(), "100 %", met(c.table1.atLeast(100)))
	r.row("other rare operations that needed a call beyond the training, accepted without a person", c.rare.String(), "≥ 95 %", met(c.rare.atLeast(95)))
	r.row("attack calls of the veto list refused", c.veto.String(), "100 %", met(c.veto.atLeast(100)))
	r.row("other attack calls refused", c.attacks.String(), "≥ 95 %", met(c.attacks.atLeast(95)))
	r.row("a poisoner's calls refused afterwards", c.poisoner.String(), "", "")
	if l := r.rs.Latency; l != nil {
		r.row("median time of a verdict beyond a held call, evidence cached", us(l.beyond(l.Panel)), "≤ 20 µs", met(l.beyond(l.Panel) <= 20))
		r.row("the same, first question about a call", us(l.beyond(l.First)), "≤ 200 µs", met(l.beyond(l.First) <= 200))
	}
	wider := share{c.rare.n + c.ways.n, c.rare.of + c.ways.of}
	r.say("\nNot in the second line are operations that are for a person by their nature (`programs.go` names them; the list was drawn up by "+
		"what they do, but with the first runs' results at hand): of those that start a program that was never seen to run, %s were "+
		"accepted; of those that open a way to the network that was not there, %s. With the latter, the second line is %s; with all of "+
		"these and Table 1, %s of all operations that needed a call beyond the training were accepted. %d operations of %d services "+
		"needed nothing beyond it and say nothing about the panel; %d more did not work for another reason.",
		c.programs, c.ways, wider, c.all, c.nothing, c.services, c.broken)
	if c.untried > 0 {
		r.say("%d attacks could not be tried.", c.untried)
	}
}

func (r *report) table1() {
	r.say("\n## (a) Optimus's Table 1\n")
	r.say(`The paper's calls are what its authors' versions made; of today's programs some make others in their place (newfstatat for
lstat). For these operations the paper's calls were also taken out of what was learned, from every phase and role, where the
training had seen them: so whatever is asked for of them is absent from training.`)
	r.head("image", "operation", "here", "the paper's calls", "calls absent from training, and verdicts", "")
	for _, t := range table1 {
		for _, s := range r.rs.Services {
			if s.Service != t.Service {
				continue
			}
			var p policy.Policy
			_ = p.UnmarshalJSON(s.Policy) // an empty one has nothing
			for i, op := range s.Ops {
				if !slices.Contains(t.Ops, op.Op) {
					continue
				}
				var l life // of the same trial, where each operation had its own
				if len(s.Lives) == len(s.Ops) {
					l = s.Lives[i]
				}
				var fates []string
				for _, call := range t.Calls {
					fates = append(fates, call+" "+fate(call, op, l, p))
				}
				r.row(t.Image, t.Operation, op.Doc, strings.Join(fates, "; "), or(strings.Join(verdicts(asked(op.Cases)), ", "), "none"), outcome(op))
			}
		}
	}
}

func outcome(op opResult) string {
	switch {
	case op.accepted():
		return "accepted"
	case len(wrong(op.Refused)) > 0:
		return "**refused**"
	}
	return "**did not work**"
}

func or(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

func (r *report) operations() {
	r.say("\n## (b) Rare operations\n")
	r.say("Those that needed a call that training did not have.")
	r.head("service", "operation", "calls absent from training, and verdicts", "")
	for _, s := range r.rs.Services {
		for _, op := range s.Ops {
			if op.asked() && !ofTable1(s.Service, op.Op) && byNature(s.Service+"/"+op.Op) == "" {
				r.row(s.Service, op.Op+": "+op.Doc, strings.Join(verdicts(asked(op.Cases)), ", "), outcome(op))
			}
		}
	}
	r.say(`
Those that are for a person by their nature. execve and executable memory are on the veto list: an intruder's command injection
makes the same calls from the same memory; and a new way to the network is what an intruder makes first.`)
	r.head("service", "operation", "", "refused", "")
	for _, s := range r.rs.Services {
		for _, op := range s.Ops {
			if what := byNature(s.Service + "/" + op.Op); what != "" {
				r.row(s.Service, op.Op+": "+op.Doc, what, strings.Join(names(wrong(op.Refused)), ", "), outcome(op))
			}
		}
	}
	var nothing []string
	for _, s := range r.rs.Services {
		for _, op := range s.Ops {
			if !op.asked() && op.Problem == "" {
				nothing = append(nothing, s.Service+" "+op.Op)
			}
		}
	}
	r.say("\nNothing beyond the training was needed by: %s.", or(strings.Join(nothing, ", "), "none"))
}

func names(all []api.HeldLine) (out []string) {
	for _, l := range all {
		out = append(out, l.Call)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func (r *report) failures() {
	r.say("\n### Every operation that was not accepted\n")
	some := false
	for _, s := range r.rs.Services {
		for _, op := range s.Ops {
			if op.accepted() {
				continue
			}
			some = true
			note := ""
			if what := byNature(s.Service + "/" + op.Op); what != "" {
				note = " (" + what + ")"
			}
			r.say("- **%s %s**%s: %s", s.Service, op.Op, note, cell(or(cut(op.Problem, 200), "it worked")))
			for _, line := range refusals1(op) {
				r.say("  - %s", line)
			}
		}
	}
	if !some {
		r.say("None.")
	}
}

func cut(s string, n int) string {
	s, _, _ = strings.Cut(s, "\n")
	if len(s) > n {
		return s[:n] + "…"
	}
	return s
}

// refusals1 of an operation, each with its votes.
func refusals1(op opResult) (out []string) {
	for _, c := range asked(op.Cases) {
		if !allowed(c) {
			out = append(out, caseLine(c))
		}
	}
	if len(out) == 0 {
		for _, l := range wrong(op.Refused) {
			out = append(out, cell(fmt.Sprintf("`%s` by %s while in %s: %s", l.Call, l.Role, l.Phase, l.Why)))
		}
	}
	return out
}

func caseLine(c judge.Case) string {
	q, d := c.Question, c.Decision
	var s strings.Builder
	s.WriteString(fmt.Sprintf("`%s` by %s while in %s (%s): %d of %d points, %s:", q.Call, or(q.Role, "an unknown role"), q.Phase, q.Refusal, d.Given, d.Needed, d.Verdict))
	for _, v := range d.Votes {
		if v.Stance != judge.Silent || v.Judge == "risk" {
			s.WriteString(fmt.Sprintf(" *%s* %s %d, %s;", v.Judge, v.Stance, v.Points, v.Why))
		}
	}
	return cell(strings.TrimSuffix(s.String(), ";"))
}

func (r *report) ownLives() {
	lives, clean := 0, 0
	var lines []string
	for _, s := range r.rs.Services {
		seen := map[string]bool{}
		for _, l := range s.Lives {
			lives++
			if len(l.Problems) == 0 && len(wrong(l.Refused)) == 0 {
				clean++
				continue
			}
			for _, p := range l.Problems {
				seen[cell(cut(p, 200))] = true
			}
			for _, w := range wrong(l.Refused) {
				seen[cell(fmt.Sprintf("`%s` refused to %s while in %s: %s", w.Call, w.Role, w.Phase, w.Why))] = true
			}
		}
		for _, line := range sorted(seen) {
			lines = append(lines, "- **"+s.Service+"**: "+line)
		}
	}
	r.say("\n### What the services do anyway\n")
	r.say("Start, load, load after the operation, and stop, all enforced: nothing was refused and nothing failed in %s lives.", share{clean, lives})
	for i, line := range lines {
		if i == 0 {
			r.say("")
		}
		r.say("%s", line)
	}
}

func sorted(set map[string]bool) (out []string) {
	for s := range set {
		out = append(out, s)
	}
	slices.Sort(out)
	return out
}
