// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/whittle-sec/whittle/internal/filter"
	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// Numbers of every class: harmless, gated, critical, waiting, chance, the kernel's, multiplexers of i386, without a name.
var genNr = rapid.SampledFrom([]uint32{0, 1, 4, 9, 10, 11, 12, 15, 20, 39, 41, 44, 47, 56, 59, 61, 62, 102, 105, 117, 202, 231, 257, 435, 600, 1023})

var genRole = rapid.SampledFrom([]string{"m:0", "m:1", "n:0", "?:0"})

func genSet(t *rapid.T, label string) syscalls.Set {
	return syscalls.SetOf(rapid.SliceOfN(genNr, 0, 12).Draw(t, label)...)
}

func genPhases(t *rapid.T) map[policy.Phase]syscalls.Set {
	m := map[policy.Phase]syscalls.Set{}
	for _, phase := range rapid.SliceOfN(rapid.SampledFrom(policy.Phases[:]), 0, 4).Draw(t, "phases") {
		m[phase] = genSet(t, phase.String())
	}
	return m
}

func genCalls(t *rapid.T) *policy.Calls {
	reasons := rapid.MapOfN(genNr, rapid.Just("by ann"), 0, 2)
	return &policy.Calls{
		Phases: genPhases(t), Floor: genSet(t, "floor"), Exec: genSet(t, "exec"), Withheld: reasons.Draw(t, "withheld"),
		Quarantined: reasons.Draw(t, "quarantined"),
		Roles: rapid.MapOfN(genRole, rapid.Custom(func(t *rapid.T) policy.RoleCalls {
			return policy.RoleCalls{Phases: genPhases(t), Birth: genSet(t, "birth")}
		}), 0, 3).Draw(t, "roles"),
		Evidence: rapid.MapOfN(genNr, rapid.Custom(func(t *rapid.T) policy.Evidence {
			return policy.Evidence{
				Source: "observed", Runs: rapid.IntRange(0, 2).Draw(t, "runs"), Rate: rapid.Float64Range(0, 5000).Draw(t, "rate"),
				Phases: policy.PhaseCounts{policy.Boot: rapid.Uint64Range(0, 5000).Draw(t, "boot"), policy.Stop: rapid.Uint64Range(0, 5000).Draw(t, "stop")},
			}
		}), 0, 8).Draw(t, "evidence"),
		Args: rapid.MapOfN(genNr, rapid.SliceOfN(rapid.Custom(func(t *rapid.T) policy.ArgRule {
			return policy.ArgRule{Index: rapid.Uint8Range(0, 1).Draw(t, "index"), Mask: 3, Value: rapid.Uint64Range(0, 3).Draw(t, "value")}
		}), 1, 3), 0, 4).Draw(t, "args"),
	}
}

var genPolicy = rapid.Custom(func(t *rapid.T) policy.Policy {
	return policy.Policy{ABIs: rapid.MapOfN(rapid.SampledFrom(syscalls.ABIs[:]), rapid.Custom(genCalls), 0, 2).Draw(t, "abis")}
})

// data is how a filter sees a call.
func data(c syscalls.Call, args [6]uint64) filter.Data {
	arch, _ := syscalls.AuditArch(c.ABI)
	if c.ABI == syscalls.X32 {
		c.Nr |= syscalls.X32Flag
	}
	return filter.Data{Nr: c.Nr, Arch: arch, Args: args}
}

// Over all numbers: the kernel lets nothing through that a static profile of the whole policy would refuse, it refuses
// without asking only what is shut, and never kills; and running is no wider than booting.
func TestRules(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := genPolicy.Draw(t, "p")
		plan := Make(p, Default())
		booting, running := plan.Booting(), plan.Running()
		args := [6]uint64{rapid.Uint64Range(0, 3).Draw(t, "a0"), rapid.Uint64Range(0, 3).Draw(t, "a1")}
		for _, abi := range syscalls.ABIs {
			for nr := range uint32(syscalls.MaxNr + 1) {
				c := syscalls.Call{ABI: abi, Nr: nr}
				boot, run := booting.Decide(data(c, args)), running.Decide(data(c, args))
				for _, action := range []filter.Action{boot, run} {
					static := policy.Decide(p, policy.Selection{Exec: true}, c, args)
					if action == filter.Allow && static.Action != policy.Allow {
						t.Fatalf("%v %v is let through, the whole policy refuses it", abi, c)
					}
					if action != filter.Allow && action != filter.Notify && (!shut(plan, c) || action == filter.Errno(0)) {
						t.Fatalf("%v %v gets %v, but is not shut", abi, c, action)
					}
				}
				if run == filter.Allow && boot != filter.Allow {
					t.Fatalf("%v %v is let through while running, but not while booting", abi, c)
				}
				if run != boot && !plan.HasBulk() {
					t.Fatalf("%v %v: the filters differ, but nothing is bulk", abi, c)
				}
			}
		}
		for _, r := range []*filter.Rules{booting, running} {
			if _, err := filter.Compile(r); err != nil {
				t.Fatal(err)
			}
			for abi := range r.Tables {
				if write, _ := syscalls.Number(abi, "write"); r.Tables[abi].Actions[write] == filter.Notify {
					t.Fatal("write is held")
				}
			}
		}
	})
}

func shut(p *Plan, c syscalls.Call) bool {
	t := p.tables[c.ABI]
	return t == nil || c.Nr >= syscalls.MaxNr || t.entries[c.Nr].Place == Shut
}

// Answers to the service are within the policy but for the one inference, agree with the filter, and go the way that
// phases, births and roles go.
func TestAnswers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := genPolicy.Draw(t, "p")
		plan := Make(p, Default())
		running := plan.Running()
		args := [6]uint64{rapid.Uint64Range(0, 3).Draw(t, "a0"), rapid.Uint64Range(0, 3).Draw(t, "a1")}
		for range 50 {
			c := syscalls.Call{ABI: rapid.SampledFrom(syscalls.ABIs[:]).Draw(t, "abi"), Nr: genNr.Draw(t, "nr")}
			static := policy.Decide(p, policy.Selection{}, c, args).Action == policy.Allow
			open := running.Decide(data(c, args)) == filter.Allow
			exec := plan.Answer(Asker{Lane: observe.LaneExec}, c, args)
			check(t, plan, p, c, Asker{Lane: observe.LaneExec}, exec)
			if calls := p.ABIs[c.ABI]; calls != nil && exec.Action == policy.Allow {
				_, withheld := calls.Withheld[c.Nr]
				within := policy.Decide(p, policy.Selection{Exec: true}, c, args).Action == policy.Allow
				class := classesOf(c.ABI)
				if !within && (withheld || !class.harmless.Has(c.Nr) && !class.starting.Has(c.Nr)) {
					t.Fatalf("%v %v: exec may make it (%s)", c.ABI, c, exec.Why)
				}
			}
			for _, role := range []string{"", "x:0", "m:0", "m:1", "n:0", "?:0"} {
				ask := func(phase policy.Phase, birth bool) bool {
					a := Asker{Lane: observe.LaneService, Phase: phase, Role: role, Birth: birth}
					got := plan.Answer(a, c, args)
					check(t, plan, p, c, a, got)
					yes := got.Action == policy.Allow
					unlearnedStop := phase == policy.Stop && !plan.stopped && classesOf(c.ABI).harmless.Has(c.Nr)
					if yes && !static && !unlearnedStop {
						t.Fatalf("%v %v %+v: answered %+v, refused by the whole policy", c.ABI, c, a, got)
					}
					if open && !yes {
						t.Fatalf("%v %v %+v: answered %+v, but the filter lets it through", c.ABI, c, a, got)
					}
					a.Lane = observe.LaneNone
					if plan.Answer(a, c, args).Action == policy.Allow && !ask2(plan, a, c, args) {
						t.Fatalf("%v %v: a lane that is not known may more than a role that is not", c.ABI, c)
					}
					return yes
				}
				for _, phase := range policy.Phases {
					if ask(phase, false) && !ask(phase, true) {
						t.Fatalf("%v %v by %q: being born takes it away in %v", c.ABI, c, role, phase)
					}
				}
				if ask(policy.Run, false) && !(ask(policy.Reload, false) && ask(policy.Stop, false)) {
					t.Fatalf("%v %v by %q: a reload or stop takes it away", c.ABI, c, role)
				}
			}
		}
	})
}

// ask2 asks for the service's role that is not known.
func ask2(p *Plan, a Asker, c syscalls.Call, args [6]uint64) bool {
	a.Lane, a.Role = observe.LaneService, ""
	return p.Answer(a, c, args).Action == policy.Allow
}

func check(t *rapid.T, plan *Plan, p policy.Policy, c syscalls.Call, a Asker, got Answer) {
	switch {
	case got.Why == "":
		t.Fatalf("%v %v %+v: no reason: %+v", c.ABI, c, a, got)
	case got.Action == policy.Allow && got.Errno != 0, got.Action != policy.Allow && got.Errno == 0:
		t.Fatalf("%v %v %+v: %+v", c.ABI, c, a, got)
	case got.Action == policy.Allow && (got.Arguments || got.Withheld || got.Quarantined || got.Novel),
		got.Arguments && (got.Withheld || got.Quarantined), got.Withheld && (got.Quarantined || got.Novel), got.Quarantined && !got.Novel:
		t.Fatalf("%v %v %+v: %+v contradicts itself", c.ABI, c, a, got)
	case got.Action != policy.Allow && !shut(plan, c) && got.Errno != policy.RefusalErrno(p, c):
		t.Fatalf("%v %v %+v: errno %d, want %d", c.ABI, c, a, got.Errno, policy.RefusalErrno(p, c))
	}
}

// Who is not known may what every role may that may anything, and no more.
func TestUnknownRoleIsTheStrictest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := genPolicy.Draw(t, "p")
		plan := Make(p, Default())
		for _, table := range plan.tables {
			for _, phase := range policy.Phases {
				for name, known := range table.roles {
					if !known.serving[phase].Empty() && !known.serving[phase].Contains(table.unknown.serving[phase]) {
						t.Fatalf("%v: %q may less than a role that is not known", phase, name)
					}
				}
				if !table.service.Contains(table.unknown.serving[phase]) {
					t.Fatalf("%v: a role that is not known may more than the service", phase)
				}
			}
		}
	})
}

func TestPlaces(t *testing.T) {
	set := func(names ...string) syscalls.Set { return numbers(syscalls.I386, names) }
	i386 := func(name string) uint32 {
		nr, ok := syscalls.Number(syscalls.I386, name)
		if !ok {
			t.Fatalf("no call %s", name)
		}
		return nr
	}
	p := policy.Policy{ABIs: map[syscalls.ABI]*policy.Calls{syscalls.I386: {
		Phases: map[policy.Phase]syscalls.Set{
			policy.Boot: set("bind", "brk", "read", "chdir", "uname", "execve", "recvmsg"),
			policy.Run:  set("fstat64", "sendmsg", "kill", "unlink", "connect", "execve", "epoll_wait", "mremap"),
			policy.Stop: set("rename", "ftruncate"),
		},
		Exec:  set("getcwd"),
		Floor: set("capset", "futex"),
		Evidence: map[uint32]policy.Evidence{
			i386("sendmsg"):   {Rate: 60},
			i386("kill"):      {Rate: 600},
			i386("unlink"):    {Rate: 2000},
			i386("connect"):   {Rate: 60},
			i386("execve"):    {Rate: 900, Phases: policy.PhaseCounts{policy.Boot: 9000}},
			i386("mremap"):    {Rate: 3},
			i386("uname"):     {Runs: 2, Phases: policy.PhaseCounts{policy.Boot: 4002}},
			i386("chdir"):     {Runs: 2, Phases: policy.PhaseCounts{policy.Boot: 1000}},
			i386("ftruncate"): {Phases: policy.PhaseCounts{policy.Stop: 3000}},
		},
		Withheld: map[uint32]string{i386("mkdir"): "by ann"},
	}}}
	plan := Make(p, Default())
	got := make(map[string]Entry)
	for _, e := range plan.Entries() {
		got[e.Call.String()] = e
	}
	for _, test := range []struct {
		name string
		want Place
		bulk bool
		why  string
	}{
		{"bind", Held, false, "makes new ways to the network; boot only"},
		{"brk", Open, false, "harmless, and nobody can say when a thread will need it"},
		{"read", Open, false, "harmless, and nobody can say when a thread will need it"},
		{"recvmsg", Held, false, "known vulnerabilities are reached through it; boot only"},
		{"epoll_wait", Open, false, "threads sleep in it while the service runs"},
		{"chdir", Held, false, "harmless, but not needed while the service runs; boot only"},
		{"uname", Held, true, "a boot makes it 2001 times, too often to ask: open until the boot ends; then harmless, but not needed while the service runs; boot only"},
		{"fstat64", Open, false, "harmless, and used while the service runs"},
		{"sendmsg", Open, false, "hot: 1.7 % of all calls while running, so that its rate grows with the load"},
		{"connect", Held, false, "makes new ways to the network; in run"},
		{"kill", Open, false, "hot: holding it would cost 0.6 % of a core"},
		{"mremap", Held, false, "known vulnerabilities are reached through it; in run"},
		{"execve", Held, false, "starts programs; in boot, run"},
		{"rename", Held, false, "harmless, but not needed while the service runs; in stop"},
		{"ftruncate", Open, false, "harmless, and a reload or stop makes it 3000 times"},
		{"getcwd", Held, false, "not the service's: only what was started in the container by exec was seen to make it"},
		{"capset", Held, false, "not the service's: only the container runtime needs it, before the first program starts"},
		{"futex", Open, false, "harmless, and the container runtime may need it before anybody can be asked"},
		{"mkdir", Held, false, "withheld by ann"},
		{"ptrace", Held, false, "not in the policy"},
		{"socketcall", Shut, false, "not in the policy, and is many calls in one, so that nobody could tell which is asked for"},
		{"write", Shut, false, "not in the policy, and runc refuses to hold it"},
		{"restart_syscall", Open, false, "the kernel or the C library makes it on its own"},
	} {
		e := got[test.name]
		if e.Place != test.want || e.Bulk != test.bulk || e.Why != test.why {
			t.Errorf("%s: got %v, bulk %v, %q; want %v, bulk %v, %q", test.name, e.Place, e.Bulk, e.Why, test.want, test.bulk, test.why)
		}
	}
	if n := syscalls.Known(syscalls.I386).Len(); len(plan.Entries()) != n {
		t.Errorf("%d entries, the ABI has %d calls", len(plan.Entries()), n)
	}
}

// A name that no ABI has is a misspelling, and would be no protection.
func TestClassesAreSpeltRight(t *testing.T) {
	known := func(name string) bool {
		for _, abi := range syscalls.ABIs {
			if _, ok := syscalls.Number(abi, name); ok {
				return true
			}
		}
		return false
	}
	for name := range critical {
		if !known(name) {
			t.Errorf("critical: no ABI has %s", name)
		}
	}
	for _, list := range [][]string{waits, chance, multiplexers, starting} {
		for _, name := range list {
			if !known(name) {
				t.Errorf("no ABI has %s", name)
			}
		}
	}
}

func TestUnlearnedStop(t *testing.T) {
	p := policy.Policy{ABIs: map[syscalls.ABI]*policy.Calls{x86: {Phases: map[policy.Phase]syscalls.Set{
		policy.Boot: numbers(x86, []string{"bind"}), policy.Run: numbers(x86, []string{"read"}),
	}}}}
	asker := service(policy.Stop, "", false)
	for name, want := range map[string]policy.Action{"rename": policy.Allow, "fsync": policy.Allow, "execve": policy.Refuse, "bind": policy.Refuse, "sendmsg": policy.Refuse} {
		if got := Make(p, Default()).Answer(asker, call(t, name), [6]uint64{}); got.Action != want {
			t.Errorf("%s: %+v", name, got)
		}
	}
	p.ABIs[x86].Phases[policy.Stop] = numbers(x86, []string{"unlink"})
	if got := Make(p, Default()).Answer(asker, call(t, "rename"), [6]uint64{}); got.Action != policy.Refuse {
		t.Errorf("a stop was learned, and more is allowed: %+v", got)
	}
}
