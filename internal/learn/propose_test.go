// SPDX-License-Identifier: Apache-2.0

package learn

import (
	"bytes"
	"compress/gzip"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
	"github.com/whittle-sec/whittle/internal/workload"
)

func propose(t observe.Trace) policy.Policy {
	return Propose(workload.Workload{Image: "test"}, t, Analyse(t, Default()))
}

// nginx: a master that forks a worker, which drops its privileges and listens to a client; a health check; runc before it.
func nginx(t *testing.T) (*script, observe.Trace) {
	s := newScript(t)
	s.calls(s.cell(observe.LaneRuntime, "runc", 0, false), 1, []string{"futex", "close", "execve"})
	master := s.cell(observe.LaneService, "/usr/sbin/nginx", 0, false)
	s.calls(s.cell(observe.LaneService, "/usr/sbin/nginx", 0, true), 1, []string{"brk", "openat", "close"})
	s.calls(master, 1, []string{"bind", "listen", "rt_sigsuspend"})
	s.arg(master, "socket", 0, 2)
	s.arg(master, "clone", 0, 0)
	born := s.cell(observe.LaneService, "/usr/sbin/nginx", 1, true)
	s.calls(born, 1, []string{"setuid", "setgid"})
	worker := s.cell(observe.LaneService, "/usr/sbin/nginx", 1, false)
	s.epoch(0.5, observe.CauseReady)
	s.calls(worker, 3, []string{"accept4", "recvfrom", "writev", "close"})
	s.epoch(1.5, observe.CauseTick)
	s.calls(worker, 100, []string{"accept4", "recvfrom", "writev", "close", "epoll_wait"})
	s.calls(born, 1, []string{"setuid", "madvise"}) // a worker that was born late
	exec := s.cell(observe.LaneExec, "/bin/curl", 0, false)
	s.calls(exec, 1, []string{"connect", "close"})
	s.arg(exec, "socket", 0, 1<<32|10) // the kernel takes an int
	s.epoch(2.5, observe.CauseStop)
	s.calls(master, 1, []string{"kill", "unlink", "exit_group"})
	s.trace.Denied = []observe.Denied{
		{Lane: observe.LaneService, Call: syscalls.Call{ABI: syscalls.X86_64, Nr: s.number("keyctl")}, Errno: 38, Count: 2},
		{Lane: observe.LaneService, Call: syscalls.Call{ABI: syscalls.X86_64, Nr: s.number("keyctl")}, Errno: 1, Count: 3},
	}
	return s, s.end(2.6, true)
}

func TestPropose(t *testing.T) {
	s, trace := nginx(t)
	p := propose(trace)
	calls := p.ABIs[syscalls.X86_64]
	if !p.Complete || len(p.Partial) != 0 || p.Account.Runs != 1 {
		t.Errorf("complete %v %q, want complete", p.Complete, p.Partial)
	}
	sets := map[string]syscalls.Set{
		"boot": calls.Phases[policy.Boot], "run": calls.Phases[policy.Run], "reload": calls.Phases[policy.Reload],
		"stop": calls.Phases[policy.Stop], "floor": calls.Floor, "exec": calls.Exec,
		"master boot":  calls.Roles["/usr/sbin/nginx:0"].Phases[policy.Boot],
		"master birth": calls.Roles["/usr/sbin/nginx:0"].Birth,
		"worker run":   calls.Roles["/usr/sbin/nginx:1"].Phases[policy.Run],
		"worker birth": calls.Roles["/usr/sbin/nginx:1"].Birth,
	}
	got := map[string][]string{}
	for name, set := range sets {
		got[name] = set.Names(syscalls.X86_64)
	}
	want := map[string][]string{
		"boot":         {"bind", "brk", "clone", "close", "listen", "openat", "rt_sigsuspend", "setgid", "setuid", "socket"},
		"run":          {"accept4", "close", "epoll_wait", "madvise", "recvfrom", "setuid", "writev"},
		"reload":       {},
		"stop":         {"exit_group", "kill", "unlink"},
		"floor":        {"close", "execve", "futex"},
		"exec":         {"close", "connect", "socket"},
		"master boot":  {"bind", "clone", "listen", "rt_sigsuspend", "socket"},
		"master birth": {"brk", "close", "openat"},
		"worker run":   {"accept4", "close", "epoll_wait", "recvfrom", "writev"},
		"worker birth": {"madvise", "setgid", "setuid"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("sets differ\n%s", diff)
	}

	wantEvidence := map[string]policy.Evidence{
		"close": {
			Source: "observed", Count: 1 + 1 + 3 + 100 + 1, LastSeen: 1500 * time.Millisecond,
			Phases: policy.PhaseCounts{policy.Boot: 1, policy.Run: 103}, Rate: 100, Runs: 1,
			Lanes: []string{"service", "exec", "runtime"}, Roles: []string{"/usr/sbin/nginx:0", "/usr/sbin/nginx:1"},
		},
		"futex": {Source: "floor", Count: 1, Lanes: []string{"runtime"}, Runs: 1},
		"unlink": {
			Source: "observed", Count: 1, FirstSeen: 2500 * time.Millisecond, LastSeen: 2500 * time.Millisecond,
			Phases: policy.PhaseCounts{policy.Stop: 1}, Lanes: []string{"service"}, Roles: []string{"/usr/sbin/nginx:0"}, Runs: 1,
		},
	}
	for name, want := range wantEvidence {
		if diff := cmp.Diff(want, calls.Evidence[s.number(name)]); diff != "" {
			t.Errorf("evidence of %s differs\n%s", name, diff)
		}
	}
	if got, want := calls.Denied, (map[uint32]policy.DeniedCall{s.number("keyctl"): {Errno: 1, Count: 5}}); !maps.Equal(got, want) {
		t.Errorf("denied %v, want %v", got, want)
	}
	wantArgs := map[uint32][]policy.ArgRule{
		s.number("socket"): {{Mask: lower32, Value: 2}, {Mask: lower32, Value: 10}},
		s.number("clone"):  {{Mask: namespaceFlags, Value: 0}},
	}
	if diff := cmp.Diff(wantArgs, calls.Args); diff != "" {
		t.Errorf("rules differ\n%s", diff)
	}
}

// Everything that was observed is allowed, and has its evidence, whatever else is true of the trace.
func TestNothingVanishes(t *testing.T) {
	_, trace := nginx(t)
	lossy := trace
	lossy.Account.Losses = map[string]uint64{"cell": 2}
	late := trace
	late.Account.Late = true
	for name, trace := range map[string]observe.Trace{"complete": trace, "lossy": lossy, "late": late} {
		t.Run(name, func(t *testing.T) {
			p := propose(trace)
			for _, cell := range trace.Cells {
				for _, seen := range cell.Calls {
					if !policy.AllowedSet(p, policy.Selection{Exec: true}, seen.Call.ABI).Has(seen.Call.Nr) {
						t.Errorf("%s is not allowed", seen.Call)
					}
					if e := p.ABIs[seen.Call.ABI].Evidence[seen.Call.Nr]; e.Source == "" || e.Count == 0 {
						t.Errorf("%s has no evidence", seen.Call)
					}
				}
			}
		})
	}
}

// Design invariant 2: a window in which events were lost never makes a policy stricter.
func TestLossesWiden(t *testing.T) {
	_, trace := nginx(t)
	whole := propose(trace).ABIs[syscalls.X86_64]
	for _, counter := range []string{"task", "cell", "call", "mark", "child-cgroup", "something new"} {
		t.Run(counter, func(t *testing.T) {
			trace := trace
			trace.Account.Losses = map[string]uint64{counter: 1}
			p := propose(trace)
			if p.Complete || len(p.Partial) != 1 || p.Settled.Settled {
				t.Errorf("complete %v %q, settled %v", p.Complete, p.Partial, p.Settled.Settled)
			}
			calls := p.ABIs[syscalls.X86_64]
			union := syscalls.Set{}
			for _, set := range whole.Phases {
				union = union.Union(set)
			}
			for _, phase := range []policy.Phase{policy.Boot, policy.Run, policy.Stop} {
				if got := calls.Phases[phase]; got != union {
					t.Errorf("%s has %v, want all %v", phase, got.Names(syscalls.X86_64), union.Names(syscalls.X86_64))
				}
			}
			for role, set := range whole.Roles {
				for _, phase := range policy.Phases {
					if !calls.Roles[role].Phases[phase].Contains(set.Phases[phase]) {
						t.Errorf("%s lost a call in %s", role, phase)
					}
				}
			}
			if len(calls.Args) != 0 {
				t.Errorf("arguments are limited: %v", calls.Args)
			}
		})
	}
}

func TestArgs(t *testing.T) {
	tests := []struct {
		name  string
		write func(s *script, cell int)
		want  map[string][]uint64
	}{
		{"values of each call", func(s *script, cell int) {
			s.arg(cell, "socket", 0, 10)
			s.arg(cell, "socket", 0, 1)
			s.arg(cell, "setns", 1, 0x40000000)
			s.arg(cell, "personality", 0, 0xffffffff)
		}, map[string][]uint64{"socket": {1, 10}, "setns": {0x40000000}, "personality": {0xffffffff}}},
		{"clone by its namespace flags", func(s *script, cell int) {
			s.arg(cell, "clone", 0, 0x7E020080|0x11)
			s.arg(cell, "clone", 0, 0x00000100)
		}, map[string][]uint64{"clone": {0, 0x7E020080}}},
		{"too many values", func(s *script, cell int) {
			for v := range uint64(maxValues + 1) {
				s.arg(cell, "keyctl", 0, v)
			}
		}, nil},
		{"just few enough", func(s *script, cell int) {
			for v := range uint64(maxValues) {
				s.arg(cell, "keyctl", 0, v)
			}
		}, map[string][]uint64{"keyctl": {0, 1, 2, 3, 4, 5, 6, 7}}},
		{"memory for data and for code that is read", func(s *script, cell int) {
			s.arg(cell, "mmap", 2, 0)
			s.arg(cell, "mmap", 2, 3)
		}, map[string][]uint64{"mmap": {0, 2, 4}}},
		{"memory for code that is made", func(s *script, cell int) { s.arg(cell, "mmap", 2, 7) }, nil},
		{"never prctl", func(s *script, cell int) { s.arg(cell, "prctl", 0, 15) }, nil},
		{"no other argument", func(s *script, cell int) { s.arg(cell, "socket", 1, 15) }, nil},
		{"a cell without a value", func(s *script, cell int) {
			s.arg(cell, "socket", 0, 2)
			s.calls(s.cell(observe.LaneRuntime, "runc", 0, false), 1, []string{"socket"})
		}, nil},
		{"a value that nobody used", func(s *script, cell int) {
			s.arg(cell, "socket", 0, 2)
			s.trace.Cells[cell].Calls = nil
		}, nil},
		{"values were lost", func(s *script, cell int) {
			s.arg(cell, "socket", 0, 2)
			s.trace.Account.Losses = map[string]uint64{"argument": 1}
		}, nil},
		{"attached late", func(s *script, cell int) {
			s.arg(cell, "socket", 0, 2)
			s.trace.Account.Late = true
		}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newScript(t)
			cell := s.cell(observe.LaneService, "x", 0, false)
			tt.write(s, cell)
			s.calls(cell, 1, []string{"getpid"})
			var got map[string][]uint64
			for nr, rules := range propose(s.end(1, true)).ABIs[syscalls.X86_64].Args {
				if got == nil {
					got = map[string][]uint64{}
				}
				for _, rule := range rules {
					name := syscalls.Name(syscalls.X86_64, nr)
					got[name] = append(got[name], rule.Value)
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("rules differ\n%s", diff)
			}
		})
	}
}

// The names must exist, or a rule would never be made: in each ABI but for socket on i386 kernels before 4.3, and mmap2.
func TestConstrainedNames(t *testing.T) {
	for name := range constrained {
		for _, abi := range syscalls.ABIs {
			if _, ok := syscalls.Number(abi, name); !ok && (name != "mmap2" || abi == syscalls.I386) {
				t.Errorf("%s has no %s", abi, name)
			}
		}
	}
	for _, name := range receiving {
		if !slices.ContainsFunc(syscalls.ABIs[:], func(a syscalls.ABI) bool { _, ok := syscalls.Number(a, name); return ok }) {
			t.Errorf("no ABI has %s", name)
		}
	}
}

// The one accept of a service with one lasting connection was made before it succeeded.
func TestAcceptBelongsToRun(t *testing.T) {
	s := newScript(t)
	s.service("redis", loaderCalls...)
	s.service("redis", "listen", "accept4")
	s.epoch(0.1, observe.CauseReady)
	s.until(20, func(int) { s.burst("redis", 100, requestCalls...) })
	calls := propose(s.end(21, false)).ABIs[syscalls.X86_64]
	for where, set := range map[string]syscalls.Set{"run": calls.Phases[policy.Run], "role": calls.Roles["redis:0"].Phases[policy.Run]} {
		if !set.Has(s.number("accept4")) || set.Has(s.number("listen")) {
			t.Errorf("%s has %v, want accept4 and not listen", where, set.Names(syscalls.X86_64))
		}
	}
}

func TestDamagedTraceAllowsNothing(t *testing.T) {
	_, trace := nginx(t)
	trace.Cells[0].Calls[0].Call.Nr = 5000
	p := propose(trace)
	if p.Complete || len(p.Partial) != 1 || len(p.ABIs) != 0 || p.Settled.PUnseen != 1 {
		t.Errorf("policy of a damaged trace: %+v", p)
	}
}

func TestI386IsApart(t *testing.T) {
	s := newScript(t)
	cell := s.cell(observe.LaneService, "x", 0, false)
	s.calls(cell, 1, []string{"writev"}) // number 20
	s.trace.Cells[cell].Calls = append(s.trace.Cells[cell].Calls,
		observe.Seen{Call: syscalls.Call{ABI: syscalls.I386, Nr: 20}, Epochs: []observe.EpochCount{{0, 1}}})
	trace := s.end(1, true)
	p, r := propose(trace), Analyse(trace, Default())
	if got := p.ABIs[syscalls.I386].Phases[policy.Boot].Names(syscalls.I386); !slices.Equal(got, []string{"getpid"}) {
		t.Errorf("i386 %v, want getpid", got)
	}
	if got := p.ABIs[syscalls.X86_64].Phases[policy.Boot].Names(syscalls.X86_64); !slices.Equal(got, []string{"writev"}) {
		t.Errorf("x86-64 %v, want writev", got)
	}
	if r.Distinct != 2 || r.ByABI[syscalls.I386] != 1 {
		t.Errorf("%d distinct calls, %v by ABI", r.Distinct, r.ByABI)
	}
}

// Whatever a trace file holds that can be read at all, learning from it does not panic, and its policy can be written.
func FuzzAnalyse(f *testing.F) {
	f.Add([]byte(`{"arch":"x86_64","epochs":[{"start":0},{"start":5,"cause":2},{"start":9,"cause":4}],"length":9,
		"cells":[{"lane":1,"role":{"exe":"x","generation":0},"calls":[{"call":{"ABI":"i386","Nr":20},"epochs":[[0,1],[2,9]]}]}],
		"bursts":[{"cell":0,"abi":"i386","calls":[20],"stage":1,"epochs":[[1,1]]}],
		"args":[{"cell":0,"call":{"ABI":"i386","Nr":20},"index":0,"value":1,"first":0}]}`))
	f.Add([]byte(`{"arch":"arm64","epochs":[{"start":0,"cause":4},{"start":0,"cause":2},{"start":0,"cause":3}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var file bytes.Buffer
		w := gzip.NewWriter(&file)
		w.Write(text)
		w.Close()
		trace, err := observe.Read(&file)
		if err != nil {
			return
		}
		r := Analyse(trace, Default())
		if len(r.Cut.Of) != len(trace.Epochs) || len(r.Speaker.Of) != len(trace.Epochs) {
			t.Errorf("%d epochs have %d and %d phases", len(trace.Epochs), len(r.Cut.Of), len(r.Speaker.Of))
		}
		if _, err := policy.Encode(Propose(workload.Workload{}, trace, r)); err != nil {
			t.Errorf("encode: %v", err)
		}
	})
}
