// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/corpus"
	"github.com/whittle-sec/whittle/internal/judge"
	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

const role = "/usr/sbin/nginx:0"

func call(t *testing.T, name string) syscalls.Call {
	t.Helper()
	nr, ok := syscalls.Number(syscalls.X86_64, name)
	if !ok {
		t.Fatalf("no call %s", name)
	}
	return syscalls.Call{ABI: syscalls.X86_64, Nr: nr}
}

// learned policy: one role that reads.
func learned(t *testing.T) policy.Policy {
	var set syscalls.Set
	set.Add(call(t, "read").Nr)
	phases := map[policy.Phase]syscalls.Set{policy.Boot: set, policy.Run: set}
	var p policy.Policy
	p.Workload.Image, p.Workload.Command = "nginx", []string{"nginx"}
	p.ABIs = map[syscalls.ABI]*policy.Calls{syscalls.X86_64: {Phases: phases, Roles: map[string]policy.RoleCalls{role: {Phases: phases}}}}
	return p
}

// judged case, as the panel decides it.
func judged(t *testing.T, name string, class judge.Class) judge.Case {
	c := judge.Case{Question: judge.Question{Call: call(t, name), Lane: observe.LaneService, Phase: policy.Run, Role: role, Novel: true}}
	c.Evidence.Origin.Class = class
	c.Evidence.Import = judge.Import{Carrier: judge.Imports, Object: "/usr/sbin/nginx", Symbol: name}
	c.Decision = judge.New(learned(t), nil).Decide(c.Question, c.Evidence)
	return c
}

func example(t *testing.T) *results {
	text, err := json.Marshal(learned(t))
	if err != nil {
		t.Fatal(err)
	}
	refused := []api.HeldLine{{Call: "execve", Lane: "service", Errno: 1, Why: "not in the policy"}}
	return &results{Services: []serviceResult{{
		Service: "nginx", LeftOut: []string{"nginx"}, Policy: text,
		Ops: []opResult{
			{Op: "cache-purge", Cases: []judge.Case{judged(t, "unlink", judge.File)}},
			{Op: "limits", Cases: []judge.Case{judged(t, "umask", judge.File)}},
			{Op: "upload", Cases: []judge.Case{judged(t, "execve", judge.File)}, Refused: refused, Problem: "a | b\nc"},
			{Op: "reload"},
			{Op: "tls-reload", Refused: []api.HeldLine{{Call: "clone3", Lane: "service", Errno: policy.ENOSYS}}},
		},
		Attacks: []attackResult{
			{Attack: "shellcode", Kind: "injected code", Cases: []judge.Case{judged(t, "umask", judge.Anonymous)}, Tried: []tried{
				{Attempt: Attempt{Call: "umask", Errno: unix.EPERM}, Refused: true}, {Attempt: Attempt{Call: "chmod"}, How: "let through by what was learned"},
			}},
			{Attack: "namespaces", Kind: "veto", Tried: []tried{{Attempt: Attempt{Call: "unshare", Errno: unix.EPERM}, Veto: true, Refused: true}}},
			{Attack: "poison", Kind: "poisoner", Learning: true, Tried: []tried{{Attempt: Attempt{Call: "bpf", Errno: unix.EPERM}, Veto: true, Refused: true}}},
			{Attack: "broken", Problem: "it did not start"},
		},
	}}}
}

func TestCount(t *testing.T) {
	got := count(example(t))
	want := counts{services: 1, table1: share{2, 2}, rare: share{1, 2}, all: share{2, 3}, nothing: 1,
		attacks: share{1, 2}, veto: share{1, 1}, poisoner: share{1, 1}, untried: 1}
	if got != want {
		t.Errorf("count = %+v, want %+v", got, want)
	}
}

func TestAblate(t *testing.T) {
	p := judge.New(learned(t), nil)
	legitimate := []trialOf{{p, []judge.Case{judged(t, "umask", judge.File)}}, {p, []judge.Case{judged(t, "unlink", judge.File)}}}
	attacks := []trialOf{{p, []judge.Case{judged(t, "umask", judge.Anonymous), judged(t, "unshare", judge.File)}}}
	got := map[string]ablated{}
	for _, a := range ablate(legitimate, attacks) {
		got[a.Panel] = a
	}
	for _, want := range []ablated{
		{"all judges", 2, 2}, {"without origin", 2, 1}, {"without risk", 2, 1}, {"without import", 0, 2}, {"import alone", 2, 0}, {"fleet alone", 0, 2},
	} {
		if got[want.Panel] != want {
			t.Errorf("%+v, want %+v", got[want.Panel], want)
		}
	}
}

func TestReport(t *testing.T) {
	text, err := makeReport(example(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"2 of 2 (100.0 %) | 100 % | met", "1 of 2 (50.0 %) | ≥ 95 % | **missed**", "unlink learn", "- **nginx upload**: a \\| b",
		"`execve` by /usr/sbin/nginx:0 while in run", "**nginx, shellcode**: `chmod` let through by what was learned", "could not be tried: it did not start",
		"| all judges | 2 | 1 |",
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the report lacks %q:\n%s", want, text)
		}
	}
}

func TestOutcomes(t *testing.T) {
	n := news{Cases: []judge.Case{judged(t, "umask", judge.File)}}
	got := outcomes([]Attempt{{Call: "bpf", Errno: unix.EPERM}, {Call: "bpf", Errno: unix.EPERM}, {Call: "clone3", Errno: unix.ENOSYS}, {Call: "umask"}, {Call: "read"}},
		map[string]uint64{"bpf": 3}, map[string]uint64{"bpf": 4}, n)
	var how []string
	for _, o := range got {
		how = append(how, o.How)
	}
	want := "refused when it was held, let through by what was learned, refused by the filter, let through by the panel, let through by what was learned"
	if strings.Join(how, ", ") != want || !got[0].Veto || got[3].Veto {
		t.Errorf("outcomes = %+v", got)
	}
}

func TestKin(t *testing.T) {
	all := []corpus.Service{{Name: "a", Packages: []string{"x 1", "y 1"}}, {Name: "b", Packages: []string{"y 1"}}, {Name: "c", Packages: []string{"z 1"}}}
	if got := kin(all, "a"); strings.Join(got, " ") != "a b" {
		t.Errorf("kin = %v", got)
	}
}

func TestReplaced(t *testing.T) {
	name := func(s string) string { return s[:1] }
	if got := replaced([]string{"a1", "b1"}, []string{"b2"}, true, name); strings.Join(got, " ") != "b2 a1" {
		t.Errorf("some: %v", got)
	}
	if got := replaced([]string{"a1", "b1"}, []string{"b2"}, false, name); strings.Join(got, " ") != "b2" {
		t.Errorf("all: %v", got)
	}
}

func TestUnseen(t *testing.T) {
	p := learned(t)
	q, err := unseen(p, []string{"read", "no-such-call"})
	if err != nil {
		t.Fatal(err)
	}
	nr := call(t, "read").Nr
	for _, set := range q.ABIs[syscalls.X86_64].Phases {
		if set.Has(nr) {
			t.Error("a phase has it still")
		}
	}
	if q.ABIs[syscalls.X86_64].Roles[role].Phases[policy.Run].Has(nr) || !p.ABIs[syscalls.X86_64].Phases[policy.Run].Has(nr) {
		t.Error("the role has it still, or the policy that it was taken from has not")
	}
}
