// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/whittle-sec/whittle/internal/syscalls"
)

// served is a service that was learned: a master that forks while it runs, and a worker that does not.
func served(t testing.TB) Policy {
	t.Helper()
	clone, read := call(t, "clone").Nr, call(t, "read").Nr
	both := syscalls.SetOf(clone, read)
	return Policy{ABIs: map[syscalls.ABI]*Calls{syscalls.X86_64: {
		Phases: map[Phase]syscalls.Set{Boot: both, Run: both},
		Roles: map[string]RoleCalls{
			"m:0": {Phases: map[Phase]syscalls.Set{Run: both}},
			"m:1": {Phases: map[Phase]syscalls.Set{Run: syscalls.SetOf(read)}},
		},
		Evidence: map[uint32]Evidence{clone: {Source: "observed", Count: 3}, read: {Source: "observed", Count: 9}},
		Args:     map[uint32][]ArgRule{clone: {{Index: 0, Mask: 0x7E020080}}},
	}}}
}

func TestGrant(t *testing.T) {
	p := served(t)
	connect, clone := call(t, "connect"), call(t, "clone")
	q, err := Grant(p, []syscalls.Call{connect, clone}, []Phase{Run}, "ann", "it calls home; twice")
	if err != nil {
		t.Fatal(err)
	}
	c := q.ABIs[syscalls.X86_64]
	if run := c.Phases[Run]; !run.Has(connect.Nr) || !run.Has(clone.Nr) {
		t.Errorf("run is %v", run.Names(syscalls.X86_64))
	}
	if boot := c.Phases[Boot]; boot.Has(connect.Nr) {
		t.Error("a grant for run is one for boot")
	}
	if e := c.Evidence[connect.Nr]; e.Source != "granted" || e.Reason != "by ann: it calls home, twice" {
		t.Errorf("evidence of a call that was not there: %+v", e)
	}
	if e := c.Evidence[clone.Nr]; e.Source != "observed" || e.Count != 3 || !strings.Contains(e.Reason, "by ann") {
		t.Errorf("evidence of a call that was there: %+v", e)
	}
	if r := c.Roles["m:1"]; !r.has(clone.Nr) || r.has(connect.Nr) {
		t.Error("the worker has not got what only its master had, or got what no role is asked about")
	}
	if d := Decide(q, Selection{}, clone, [6]uint64{0x10000000}); d.Action != Refuse {
		t.Error("a grant took the rules for arguments away")
	}
	if before := p.ABIs[syscalls.X86_64].Phases[Run]; before.Has(connect.Nr) {
		t.Error("the grant changed the policy that it was given")
	}
	if all, err := Grant(p, []syscalls.Call{connect}, nil, "ann", ""); err != nil {
		t.Error(err)
	} else if stop := all.ABIs[syscalls.X86_64].Phases[Stop]; !stop.Has(connect.Nr) {
		t.Error("a grant without phases is not for all of them")
	}
}

func TestGrantRefuses(t *testing.T) {
	for _, test := range []struct {
		name, by string
		call     syscalls.Call
		phase    Phase
		want     string
	}{
		{"nobody", " ", call(t, "connect"), Run, "nobody is named"},
		{"an ABI that is not used", "ann", syscalls.Call{ABI: syscalls.I386, Nr: 3}, Run, "never seen using the i386"},
		{"no number", "ann", syscalls.Call{ABI: syscalls.X86_64, Nr: syscalls.MaxNr}, Run, "no kernel has number 1024"},
		{"the kernel's", "ann", call(t, "exit_group"), Run, "always allowed"},
		{"no phase", "ann", call(t, "connect"), 9, "there is no phase9"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := Grant(served(t), []syscalls.Call{test.call}, []Phase{test.phase}, test.by, "")
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
			if test.phase != Run {
				return
			}
			if _, err := Withdraw(served(t), []syscalls.Call{test.call}, test.by, ""); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("withdraw: got %v, want %q", err, test.want)
			}
		})
	}
}

func TestWithdraw(t *testing.T) {
	clone := call(t, "clone")
	p := served(t)
	q, err := Withdraw(p, []syscalls.Call{clone}, "ann", "no children")
	if err != nil {
		t.Fatal(err)
	}
	learned := Merge(q, p)
	for name, q := range map[string]Policy{"at once": q, "after learning it again": learned, "the other way round": Merge(p, q)} {
		if d := Decide(q, Selection{Exec: true}, clone, [6]uint64{}); d.Action != Refuse {
			t.Errorf("%s it is allowed", name)
		}
		if c := q.ABIs[syscalls.X86_64]; c.All().Has(clone.Nr) || c.Withheld[clone.Nr] != "by ann: no children" {
			t.Errorf("%s: withheld %v", name, c.Withheld)
		}
	}
	if text := Explain(learned, clone).String(); !strings.Contains(text, "withheld by ann: no children") ||
		strings.Contains(text, "learned again") {
		t.Errorf("explained as\n%s", text)
	}
	said := slices.ContainsFunc(Diff(p, q), func(c Change) bool { return c.String() == "+ clone  withheld" })
	if !said {
		t.Errorf("the difference does not say it: %v", Diff(p, q))
	}
	back, err := Grant(learned, []syscalls.Call{clone}, nil, "bob", "needed")
	if err != nil {
		t.Fatal(err)
	}
	if d := Decide(back, Selection{}, clone, [6]uint64{}); d.Action != Allow {
		t.Error("what was granted again is refused")
	}
	p.ABIs[syscalls.X86_64].Floor = syscalls.SetOf(clone.Nr)
	if floor, _ := Withdraw(p, []syscalls.Call{clone}, "ann", ""); Decide(floor, Selection{}, clone, [6]uint64{}).Action != Allow {
		t.Error("the container would not start: its floor was withheld")
	}
}

// A withheld call is allowed by nothing but the floor, however the value came about, and a grant undoes it.
func TestWithdrawThenGrant(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := genPolicy.Draw(t, "p")
		c := syscalls.Call{ABI: rapid.SampledFrom(syscalls.ABIs[:2]).Draw(t, "abi"), Nr: genNr.Draw(t, "call")}
		q, err := Withdraw(p, []syscalls.Call{c}, "ann", "")
		if err != nil {
			return
		}
		q = Merge(genPolicy.Draw(t, "other"), q)
		calls := q.ABIs[c.ABI]
		if AllowedSet(q, Selection{Exec: true}, c.ABI).Has(c.Nr) && !calls.Floor.Has(c.Nr) {
			t.Fatalf("%v is allowed", c)
		}
		again := Policy{}
		if data := encodeRapid(t, q); again.UnmarshalJSON(data) != nil {
			t.Fatalf("cannot be read again: %s", data)
		}
		same(t, "written and read", q, again)
		if q, err = Grant(q, []syscalls.Call{c}, nil, "bob", ""); err != nil {
			t.Fatal(err)
		}
		if set := q.ABIs[c.ABI].selected(Selection{}); !set.Has(c.Nr) {
			t.Fatalf("%v is still refused", c)
		}
	})
}
