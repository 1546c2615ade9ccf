// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

func TestQuarantined(t *testing.T) {
	set := func(names ...string) syscalls.Set { return numbers(syscalls.I386, names) }
	i386 := func(name string) syscalls.Call {
		nr, _ := syscalls.Number(syscalls.I386, name)
		return syscalls.Call{ABI: syscalls.I386, Nr: nr}
	}
	all := set("read", "bpf", "socketcall", "rename", "kill", "brk", "futex")
	p := policy.Policy{ABIs: map[syscalls.ABI]*policy.Calls{syscalls.I386: {
		Phases: map[policy.Phase]syscalls.Set{policy.Run: all}, Exec: set("getcwd", "ptrace"), Floor: set("brk", "capset"),
		Roles: map[string]policy.RoleCalls{"/a:0": {Phases: map[policy.Phase]syscalls.Set{policy.Run: all}}},
		// At this rate it would be hot.
		Evidence: map[uint32]policy.Evidence{i386("bpf").Nr: {Source: "observed", Rate: 1e6, Count: 9}},
	}}}
	why := make(map[syscalls.Call]string)
	for _, name := range []string{"bpf", "socketcall", "rename", "kill", "brk", "ptrace", "capset"} {
		why[i386(name)] = "from the heap"
	}
	pl := Make(policy.Quarantine(p, why), Default())
	serving := Asker{Lane: observe.LaneService, Phase: policy.Run, Role: "/a:0"}
	exec := Asker{Lane: observe.LaneExec}
	for _, test := range []struct {
		name  string
		asker Asker
		place Place
		want  Answer
	}{
		{"bpf", serving, Held, Answer{Errno: policy.EPERM, Novel: true, Quarantined: true, Why: "quarantined: from the heap"}},
		{"bpf", exec, Held, Answer{Errno: policy.EPERM, Novel: true, Quarantined: true, Why: "quarantined: from the heap"}},
		{"socketcall", serving, Held, Answer{Errno: policy.EPERM, Novel: true, Quarantined: true, Why: "quarantined: from the heap"}},
		{"rename", serving, Held, Answer{Errno: policy.EPERM, Novel: true, Quarantined: true, Why: "quarantined: from the heap"}},
		{"capset", serving, Held, Answer{Errno: policy.EPERM, Novel: true, Quarantined: true, Why: "quarantined: from the heap"}},
		{"rename", Asker{Lane: observe.LaneService, Phase: policy.Stop}, Held,
			Answer{Errno: policy.EPERM, Novel: true, Quarantined: true, Why: "quarantined: from the heap"}},
		{"ptrace", exec, Held, Answer{Errno: policy.EPERM, Novel: true, Quarantined: true, Why: "quarantined: from the heap"}},
		{"capset", Asker{Lane: observe.LaneRuntime}, Held, allow("the runtime's own code, before the container's first program")},
		// What any exec may make, and what the runtime may need before there is anybody to ask.
		{"kill", exec, Held, allow("by exec, and a shell needs it")},
		{"brk", serving, Open, allow("harmless, and the container runtime may need it before anybody can be asked")},
		{"futex", serving, Open, allow("harmless, and nobody can say when a thread will need it")},
	} {
		call := i386(test.name)
		if e := pl.tables[syscalls.I386].entries[call.Nr]; e.Place != test.place || e.Bulk {
			t.Errorf("%s is %v, bulk %t: %s", test.name, e.Place, e.Bulk, e.Why)
		}
		if test.place != Open && test.want.Action == policy.Refuse && pl.Running().Tables[syscalls.I386].Actions[call.Nr].String() != "notify" {
			t.Errorf("%s: the filter does not ask", test.name)
		}
		if got := pl.Answer(test.asker, call, [6]uint64{}); got != test.want {
			t.Errorf("%s: got %+v, want %+v", test.name, got, test.want)
		}
	}
	for _, c := range pl.Columns() {
		if c.Calls[syscalls.I386].Has(i386("bpf").Nr) {
			t.Errorf("%v: shown as allowed", c.Phase)
		}
	}
}

// What is inferred is allowed to that role in those phases, to no other role that is known, and takes nothing from any.
func TestInferIsNarrow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := genPolicy.Draw(t, "p")
		c := syscalls.Call{ABI: rapid.SampledFrom(syscalls.ABIs[:]).Draw(t, "abi"), Nr: genNr.Draw(t, "nr")}
		role := rapid.SampledFrom([]string{"", "x:0", "m:0", "m:1", "n:0"}).Draw(t, "role")
		phase := rapid.SampledFrom(policy.Phases[:]).Draw(t, "phase")
		q, err := policy.Infer(p, c, []policy.Phase{phase}, role, "it is logrotate")
		if err != nil {
			return
		}
		if _, known := p.ABIs[c.ABI].Roles[role]; !known && len(p.ABIs[c.ABI].Roles) > 0 {
			return // TestInferForANewRole
		}
		before, after := Make(p, Default()), Make(q, Default())
		table := after.tables[c.ABI]
		for _, asked := range slices.Sorted(maps.Keys(table.roles)) {
			for nr := range uint32(syscalls.MaxNr) {
				// Threads may sleep in it since another phase, and the first of a stop or reload changes what is taken for one.
				if table.class.waits.Has(nr) || table.entries[nr].Place == Open || before.stopped != after.stopped || before.reloaded != after.reloaded {
					continue
				}
				other := syscalls.Call{ABI: c.ABI, Nr: nr}
				for _, in := range policy.Phases {
					a := service(in, asked, false)
					was, is := before.inLane(a, before.tables[c.ABI], nr), after.inLane(a, table, nr)
					if was.Action == policy.Allow && is.Action != policy.Allow {
						t.Fatalf("inferring %v for %q in %v takes %v from %q in %v: %s", c, role, phase, other, asked, in, is.Why)
					}
					wider := was.Action != policy.Allow && is.Action == policy.Allow
					mine := asked == role || len(table.calls.Roles) == 0
					served := in == phase || phase == policy.Run || phase == policy.Boot && in == policy.Reload
					if wider && nr == c.Nr && (!mine || !served) {
						t.Fatalf("inferring %v for %q in %v gives it to %q in %v: %s", c, role, phase, asked, in, is.Why)
					}
					if wider && nr != c.Nr && asked != role {
						t.Fatalf("inferring %v for %q in %v gives %v to %q in %v: %s", c, role, phase, other, asked, in, is.Why)
					}
				}
			}
		}
		if a := service(phase, role, false); after.inLane(a, table, c.Nr).Action != policy.Allow && table.entries[c.Nr].Place != Shut {
			t.Fatalf("%v is not allowed to %q in %v: %s", c, role, phase, after.inLane(a, table, c.Nr).Why)
		}
	})
}

// A program that was never seen has what every role has. One call more must not cost it that, nor give the call to others.
func TestInferForANewRole(t *testing.T) {
	for _, service := range []string{"nginx", "postgres"} {
		p := learned(t, service)
		c := call(t, "renameat2")
		const rotate = "/usr/sbin/logrotate:0"
		q, err := policy.Infer(p, c, []policy.Phase{policy.Run}, rotate, "it is logrotate")
		if err != nil {
			t.Fatal(err)
		}
		before, after := Make(p, Default()), Make(q, Default())
		for _, role := range append(slices.Sorted(maps.Keys(p.ABIs[x86].Roles)), rotate, "/bin/other:0") {
			for _, phase := range policy.Phases {
				for nr := range uint32(syscalls.MaxNr) {
					for _, birth := range []bool{false, true} {
						a := Asker{Lane: observe.LaneService, Phase: phase, Role: role, Birth: birth}
						was := before.inLane(a, before.tables[x86], nr).Action
						is := after.inLane(a, after.tables[x86], nr)
						want := was
						if nr == c.Nr && role == rotate {
							want = policy.Allow // every phase goes on running
						}
						if is.Action != want {
							t.Errorf("%s, %+v, %s: %v became %v: %s", service, a, syscalls.Name(x86, nr), was, is.Action, is.Why)
						}
					}
				}
			}
		}
	}
}
