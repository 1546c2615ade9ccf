// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/testscript"
	"github.com/whittle-sec/whittle/internal/judge"
	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/store"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// caseOfCall that is new to the workload while it runs, made from the C library.
func caseOfCall(ts *testscript.TestScript, workload, name string) judge.Case {
	nr, ok := syscalls.Number(syscalls.X86_64, name)
	if !ok {
		ts.Fatalf("there is no call %s", name)
	}
	return judge.Case{
		Workload: workload,
		Question: judge.Question{
			Call: syscalls.Call{ABI: syscalls.X86_64, Nr: nr}, Args: [6]uint64{3, ^uint64(0)}, Lane: observe.LaneService,
			Phase: policy.Run, Role: "/bin/web:0", Refusal: "in no phase of the policy", Novel: true,
		},
		Evidence: judge.Evidence{Origin: judge.Origin{Class: judge.File, Path: "/usr/lib/libc.so.6", Offset: 0x1234}},
		Decision: judge.Decision{Verdict: judge.Ask, Given: 1, Needed: 3, Why: "too little speaks for it"},
	}
}

// judged POLICY FILE writes two cases of a policy to FILE and as events into $STATE: a call whose verdict is as the panel
// gives it, and one with another verdict.
func judgedCases(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: judged POLICY FILE")
	}
	p, err := readPolicy(ts.MkAbs(args[0]))
	ts.Check(err)
	rules, err := rulesOf("")
	ts.Check(err)
	same, other := caseOfCall(ts, p.Workload.ID(), "connect"), caseOfCall(ts, p.Workload.ID(), "bpf")
	panel := judge.New(p, rules)
	same.Decision = panel.Decide(same.Question, same.Evidence)
	other.Decision = judge.Decision{Verdict: judge.Learn, Given: 9, Needed: 3, Why: "as it was \x1b[31mthen"}
	all := []judge.Case{same, other}
	text, err := json.Marshal(all)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), text, 0o600))
	db, err := store.Open(ts.Getenv("STATE"), time.Now)
	ts.Check(err)
	defer db.Close()
	for _, c := range all {
		data, err := json.Marshal(c)
		ts.Check(err)
		_, err = db.AddEvent(context.Background(), store.Event{
			Kind: judge.KindJudged, Workload: c.Workload, Container: "0123", Call: c.Question.Call.String(), Text: "web asked", Data: data,
		})
		ts.Check(err)
	}
	_, err = db.AddEvent(context.Background(), store.Event{Kind: "mode", Text: "to shadow", Data: json.RawMessage(`{"why":"a\u001bb"}`)})
	ts.Check(err)
}

func TestLegible(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"95 % ≤ 0.9", "95 % ≤ 0.9"},
		{"a\x1b[2Jb\nc\td", "a?[2Jb?c?d"},
		{"\u202eexe.txt \xff", "?exe.txt ?"},
		{strings.Repeat("x", 3000), strings.Repeat("x", 2000)},
	} {
		if got := legible(tt.in); got != tt.want {
			t.Errorf("legible(%q) = %q, want %q", tt.in, got, tt.want)
		}
	}
}

func TestOtherVotes(t *testing.T) {
	was := []judge.Vote{{Judge: "origin", Why: "a"}, {Judge: "phase", Stance: judge.For, Points: 2, Why: "b"}, {Judge: "risk", Stance: judge.Against, Why: "c"}}
	is := []judge.Vote{{Judge: "origin", Why: "other words"}, {Judge: "phase", Stance: judge.For, Points: 3, Why: "d\n"}}
	want := []string{"risk: was against (c), is silent (not heard)", "phase: was for with 2 (b), is for with 3 (d?)"}
	if diff := cmp.Diff(want, otherVotes(was, is)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
