// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/whittle-sec/whittle/internal/syscalls"
)

func TestQuarantine(t *testing.T) {
	clone, read := call(t, "clone"), call(t, "read")
	p := served(t)
	p.ABIs[x86].Exec = syscalls.SetOf(clone.Nr)
	p.ABIs[x86].Evidence[clone.Nr] = Evidence{Source: "observed", Count: 3, Rate: 1e6, Phases: PhaseCounts{Boot: 1e6}, Runs: 1}
	why := map[syscalls.Call]string{
		clone: "from the heap; twice", call(t, "exit_group"): "no", {ABI: syscalls.I386, Nr: 1}: "no", {ABI: x86, Nr: syscalls.MaxNr}: "no"}
	q := Quarantine(p, why)
	c := q.ABIs[x86]
	if c.All().Has(clone.Nr) || !c.All().Has(read.Nr) || len(c.Quarantined) != 1 || c.Quarantined[clone.Nr] != "from the heap, twice" {
		t.Errorf("quarantined %v, allowed %v", c.Quarantined, c.All().Names(x86))
	}
	if e := c.Evidence[clone.Nr]; e.Source != "quarantined" || e.Count != 3 || e.Runs != 1 || e.Rate != 0 || e.Phases != (PhaseCounts{}) {
		t.Errorf("evidence %+v", e)
	}
	if len(q.ABIs) != 1 {
		t.Error("an ABI came up that was not there")
	}
	if text := Explain(q, clone).String(); !strings.Contains(text, "quarantined: from the heap, twice.") ||
		!strings.Contains(text, "whittle policy allow "+q.Workload.ID()+" x86_64:clone") || strings.Contains(text, "learned again") {
		t.Errorf("explained as\n%s", text)
	}
	if !slices.ContainsFunc(Diff(p, q), func(c Change) bool { return c.Scope == ScopeQuarantined && c.Added }) {
		t.Errorf("the difference does not say it: %v", Diff(p, q))
	}
	granted, err := Grant(q, []syscalls.Call{clone}, nil, "ann", "it forks")
	if err != nil || len(granted.ABIs[x86].Quarantined) > 0 || Decide(granted, Selection{}, clone, [6]uint64{}).Action != Allow {
		t.Errorf("after a grant: %v, %v", err, granted.ABIs[x86].Quarantined)
	}
	withdrawn, err := Withdraw(q, []syscalls.Call{clone}, "ann", "")
	if err != nil || len(withdrawn.ABIs[x86].Quarantined) > 0 || withdrawn.ABIs[x86].Withheld[clone.Nr] == "" {
		t.Errorf("withdrawn: %v, %v", err, withdrawn.ABIs[x86])
	}
	floor := Normal(p)
	floor.ABIs[x86].Floor = syscalls.SetOf(clone.Nr)
	if floor = Quarantine(floor, why); Decide(floor, Selection{}, clone, [6]uint64{}).Action != Allow {
		t.Error("the container would not start: its floor is in quarantine")
	}
}

// In whatever order they were learned: what one run is trusted with stays allowed, and what no run is trusted with stays in
// quarantine, however often it is seen.
func TestMergeQuarantined(t *testing.T) {
	clone := call(t, "clone")
	trusted := served(t)
	held := Quarantine(trusted, map[syscalls.Call]string{clone: "from the heap"})
	for name, tt := range map[string]struct {
		p    Policy
		want Action
	}{
		"trusted first": {Merge(trusted, held), Allow},
		"trusted last":  {Merge(held, trusted), Allow},
		"never":         {Merge(held, Merge(held, held)), Refuse},
	} {
		c := tt.p.ABIs[x86]
		if got := Decide(tt.p, Selection{}, clone, [6]uint64{}).Action; got != tt.want || (len(c.Quarantined) > 0) != (tt.want == Refuse) {
			t.Errorf("%s: %v, quarantined %v", name, got, c.Quarantined)
		}
		if got, want := c.Evidence[clone.Nr].Source, map[Action]string{Allow: "observed", Refuse: "quarantined"}[tt.want]; got != want {
			t.Errorf("%s: source %q, want %q", name, got, want)
		}
	}
}

// A quarantined call is in no set but the floor, however the value came about, and being written keeps it.
func TestQuarantinedIsInNoSet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := genPolicy.Draw(t, "p")
		c := syscalls.Call{ABI: rapid.SampledFrom(syscalls.ABIs[:2]).Draw(t, "abi"), Nr: genNr.Draw(t, "call")}
		q := Quarantine(p, map[syscalls.Call]string{c: "why"})
		if q.ABIs[c.ABI] != nil && q.ABIs[c.ABI].beyondFloor().Has(c.Nr) && !syscalls.KernelOwn(c.ABI).Has(c.Nr) {
			t.Fatalf("%v is allowed", c)
		}
		q = Merge(genPolicy.Draw(t, "other"), q)
		for abi, calls := range q.ABIs {
			for nr := range calls.Quarantined {
				if calls.beyondFloor().Has(nr) || calls.withheld().Has(nr) {
					t.Fatalf("%v %d is in quarantine, and in a set or withheld", abi, nr)
				}
			}
		}
		again := Policy{}
		if err := again.UnmarshalJSON(encodeRapid(t, q)); err != nil {
			t.Fatal(err)
		}
		same(t, "written and read", q, again)
	})
}

func TestReadRefusesWhatIsTrustedAndQuarantined(t *testing.T) {
	for _, in := range []string{`"exec":["clone"]`, `"phases":{"run":["clone"]}`, `"roles":{"a:0":{"birth":["clone"]}}`} {
		file := `{"version":1,"workload":{},"abis":{"x86_64":{` + in + `,"quarantined":{"clone":"why"}}}}`
		if _, err := Read(strings.NewReader(file)); err == nil || !strings.Contains(err.Error(), "clone is quarantined, and") {
			t.Errorf("%s: %v", in, err)
		}
	}
}

func TestInfer(t *testing.T) {
	clone, connect := call(t, "clone"), call(t, "connect")
	q, err := Infer(Quarantine(served(t), map[syscalls.Call]string{clone: "from the heap"}), clone, []Phase{Run}, "m:0", "fork; equivalent")
	if err != nil {
		t.Fatal(err)
	}
	c := q.ABIs[x86]
	if !c.Phases[Run].Has(clone.Nr) || c.Phases[Boot].Has(clone.Nr) || !c.Roles["m:0"].has(clone.Nr) || c.Roles["m:1"].has(clone.Nr) {
		t.Errorf("phases %v, roles %v", c.Phases, c.Roles)
	}
	if e := c.Evidence[clone.Nr]; e.Source != "inferred" || e.Reason != "fork, equivalent; was quarantined: from the heap" || len(c.Quarantined) > 0 {
		t.Errorf("evidence %+v, quarantined %v", e, c.Quarantined)
	}
	for _, test := range []struct {
		name, role, reason string
		call               syscalls.Call
		phases             []Phase
		want               string
	}{
		{"no reason", "m:0", "", connect, []Phase{Run}, "no reason"},
		{"no phase", "m:0", "why", connect, nil, "no phase is named"},
		{"no such phase", "m:0", "why", connect, []Phase{9}, "there is no phase9"},
		{"no role", "", "why", connect, []Phase{Run}, "not known"},
		{"a role of many", "?:1", "why", connect, []Phase{Run}, "not known"},
		{"a role that cannot be shown", "m\x1b:0", "why", connect, []Phase{Run}, "cannot be shown"},
		{"an ABI that is not used", "m:0", "why", syscalls.Call{ABI: syscalls.I386}, []Phase{Run}, "never seen using"},
		{"the kernel's", "m:0", "why", call(t, "exit_group"), []Phase{Run}, "always allowed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := Infer(served(t), test.call, test.phases, test.role, test.reason)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
	withheld, err := Withdraw(served(t), []syscalls.Call{clone}, "ann", "no children")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Infer(withheld, clone, []Phase{Run}, "m:0", "why"); err == nil || !strings.Contains(err.Error(), "withheld by ann") {
		t.Errorf("what is withheld was inferred: %v", err)
	}
}
