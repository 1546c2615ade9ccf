// SPDX-License-Identifier: Apache-2.0

package judge

import (
	"slices"
	"strings"
	"testing"

	"github.com/whittle-sec/whittle/internal/cve"
	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/internal/plan"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// voted is one judge's vote on a question about a recorded service.
func voted(t *testing.T, p *Panel, judge int, q Question, e Evidence) Vote {
	t.Helper()
	v := p.vote(judge, p.hear(q, e))
	if v.Why == "" || v.Judge != Names[judge] {
		t.Errorf("%+v says nothing", v)
	}
	if v.Stance != For && v.Points != 0 {
		t.Errorf("%+v gives points", v)
	}
	return v
}

func TestPhase(t *testing.T) {
	tests := []struct {
		name, service string
		q             Question
		want          int // favour
		why           string
	}{
		{"its own, of the boot", "redis", asks(t, redisServer, policy.Run, "umask"), elsewhere, "not while running as yet"},
		{"its own, and a reload has begun", "redis", asks(t, redisServer, policy.Reload, "umask"), repeats, "outside"},
		{"its own and grave", "redis", asks(t, redisServer, policy.Run, "clone3"), 0, "which is not now"},
		{"its own and to the network", "redis", asks(t, redisServer, policy.Run, "listen"), 0, "which is not now"},
		{"the birth's", "nginx", asks(t, nginxWorker, policy.Run, "setuid"), -1, "no longer"},
		{"the birth's, of little risk", "nginx", asks(t, nginxWorker, policy.Run, "getpid"), elsewhere, "starting"},
		{"another role's", "nginx", asks(t, nginxWorker, policy.Run, "dup2"), 0, "another role"},
		{"another role's, and a reload has begun", "nginx", asks(t, nginxWorker, policy.Reload, "dup2"), begunOutside, "outside"},
		{"another role's and sensitive, and a reload has begun", "nginx", asks(t, nginxWorker, policy.Reload, "clone"), 0, "another role"},
		{"another role's, and sensitive", "nginx", asks(t, nginxWorker, policy.Run, "clone"), 0, "another role"},
		{"some role's, of a stranger", "nginx", asks(t, "/bin/busybox:0", policy.Run, "dup2"), 0, "not known"},
		{"nobody's", "nginx", asks(t, nginxMaster, policy.Run, "rename"), 0, "no phase"},
		{"nobody's, and a stop has begun", "nginx", asks(t, nginxMaster, policy.Stop, "rename"), begunOutside, "stop"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			v := voted(t, New(learned(t, test.service), nil), byPhase, test.q, Evidence{})
			if favour(v) != test.want || !strings.Contains(v.Why, test.why) {
				t.Errorf("got %+v, want %d, %q", v, test.want, test.why)
			}
		})
	}
	exec := asks(t, "/bin/sh:0", policy.Reload, "umask")
	exec.Lane = observe.LaneExec
	if v := voted(t, New(learned(t, "nginx"), nil), byPhase, exec, Evidence{}); v.Stance != Silent {
		t.Errorf("exec: %+v", v)
	}
}

func TestEquivalent(t *testing.T) {
	tests := []struct {
		name, service string
		without       []string
		q             Question
		want          int
		why           string
	}{
		{"here", "nginx", nil, asks(t, nginxWorker, policy.Run, "statx"), sameHere, "newfstatat"},
		{"here, and no power is hidden", "nginx", nil, asks(t, nginxWorker, policy.Run, "openat2"), sameHere, "openat"},
		{"in another phase", "nginx", nil, asks(t, nginxMaster, policy.Run, "dup3"), sameElsewhere, "dup2"},
		{"clone3 hides its flags", "nginx", nil, asks(t, nginxMaster, policy.Reload, "clone3"), 0, "nobody can look"},
		{"a birth does not come back", "nginx", nil, asks(t, nginxWorker, policy.Run, "setresuid"), 0, "nothing"},
		{"nothing", "redis", nil, asks(t, redisServer, policy.Run, "splice"), 0, "nothing"},
		{"not known who asks", "nginx", nil, asks(t, "", policy.Run, "statx"), 0, "not known"},
		{"fork, where clone is told by its arguments", "nginx", nil, asks(t, nginxMaster, policy.Reload, "fork"), sameElsewhere, "not with all arguments"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			v := voted(t, New(learned(t, test.service, test.without...), nil), byEquivalent, test.q, Evidence{})
			if favour(v) != test.want || !strings.Contains(v.Why, test.why) {
				t.Errorf("got %+v, want %d, %q", v, test.want, test.why)
			}
		})
	}
}

func TestAssociation(t *testing.T) {
	one := strong("symlink", "openat")
	one.Sources = one.Sources[:1]
	common := strong("symlink", "openat")
	common.Lift = 1
	usual := weak("symlink", "openat")
	usual.Lift = 1.1
	rare := weak("symlink", "openat")
	rare.Lower = 0.1
	boot := strong("symlink", "listen") // of redis' boot
	tests := []struct {
		name string
		rule Rule
		call string
		want int
	}{
		{"strong", strong("symlink", "openat"), "symlink", strongRule},
		{"strong, about an equivalent", strong("symlinkat", "openat"), "symlink", strongRule},
		{"in one workload only", one, "symlink", weakRule},
		{"nearly everybody does it", common, "symlink", strongRule},
		{"weak", weak("symlink", "openat"), "symlink", weakRule},
		{"no more than the rest do it", usual, "symlink", 0},
		{"too few do it", rare, "symlink", 0},
		{"from what it did in another phase", boot, "symlink", weakRule},
		{"from what it did in another phase, where it made the call", strong("umask", "listen"), "umask", 0},
		{"from what it never did", strong("symlink", "sendfile"), "symlink", 0},
		{"to another call", strong("rename", "openat"), "symlink", 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			v := voted(t, New(learned(t, "redis"), rules{test.rule}), byAssociation, asks(t, redisServer, policy.Run, test.call), Evidence{})
			if favour(v) != test.want || (v.Stance == For) != (v.Rule != nil && test.want > 0) {
				t.Errorf("got %+v, want %d", v, test.want)
			}
		})
	}
}

func TestCarrier(t *testing.T) {
	tests := []struct {
		e    Import
		want int
		why  string
	}{
		{Import{}, 0, "not read"},
		{Import{Why: "the file has 4 GB"}, 0, "not read: the file has 4 GB"},
		{Import{Carrier: None, Objects: 7}, -1, "none of 7 mapped objects"},
		{Import{Carrier: Imports, Object: "/usr/sbin/nginx", Symbol: "kill"}, carried, "/usr/sbin/nginx imports kill"},
		{Import{Carrier: Contains, Object: "/usr/bin/caddy"}, carried, "/usr/bin/caddy contains"},
		{Import{Carrier: 77}, 0, "not read"},
	}
	for _, test := range tests {
		if v := carrier(test.e); favour(v) != test.want || !strings.Contains(v.Why, test.why) {
			t.Errorf("%+v: %+v, want %d, %q", test.e, v, test.want, test.why)
		}
	}
}

func TestFleet(t *testing.T) {
	tests := []struct {
		e    Fleet
		want int
	}{
		{Fleet{}, 0}, {Fleet{3, 0}, 0}, {Fleet{3, 1}, oneReplica}, {Fleet{1, 1}, oneReplica}, {Fleet{2, 2}, mostReplicas},
		{Fleet{4, 2}, mostReplicas}, {Fleet{5, 2}, oneReplica}, {Fleet{1, 9}, oneReplica}, {Fleet{-3, 9}, 0}, {Fleet{3, -1}, 0},
	}
	for _, test := range tests {
		if v := fleet(test.e); favour(v) != test.want || v.Why == "" {
			t.Errorf("%+v: %+v, want %d", test.e, v, test.want)
		}
	}
}

func TestRisk(t *testing.T) {
	tests := []struct {
		name, service string
		q             Question
		want          Level
	}{
		{"harmless", "redis", asks(t, redisServer, policy.Run, "umask"), Harmless},
		{"behind a gate that is open", "postgres", asks(t, backend, policy.Run, "mremap"), Ordinary},
		{"behind a gate that is shut", "redis", asks(t, redisServer, policy.Run, "mremap"), Sensitive},
		{"behind two", "redis", asks(t, redisServer, policy.Run, "waitid"), Sensitive},
		{"behind many", "redis", asks(t, redisServer, policy.Run, "socket", 16, 3), Grave},
		{"rights", "redis", asks(t, redisServer, policy.Run, "setuid"), Grave},
		{"a fork", "redis", asks(t, redisServer, policy.Run, "clone", 17), Sensitive},
		{"a thread", "redis", asks(t, redisServer, policy.Run, "clone", 0x3d0f00), Ordinary},
		{"a signal", "nginx", asks(t, nginxMaster, policy.Run, "kill", 7, 9), Grave},
		{"a signal to everybody", "nginx", asks(t, nginxMaster, policy.Run, "kill", 0xffffffffffffffff, 9), Grave},
		{"no signal at all", "nginx", asks(t, nginxMaster, policy.Run, "kill", 7, 0), Ordinary},
		{"the network, by who serves it", "redis", asks(t, redisServer, policy.Run, "connect"), Sensitive},
		{"the network, by who does not", "postgres", asks(t, "/usr/bin/locale:0", policy.Run, "connect"), Grave},
		{"the network, by who is not known", "redis", asks(t, "", policy.Run, "connect"), Grave},
		{"rights of memory", "redis", asks(t, redisServer, policy.Run, "mprotect", 0, 4096, 1), Ordinary},
		{"a late library", "redis", asks(t, redisServer, policy.Run, "mmap", 0, 4096, 5, 2, 3), Sensitive},
		{"an everyday option", "nginx", asks(t, nginxMaster, policy.Run, "setsockopt", 3, 6, 3), Ordinary},
		{"the file's mode", "redis", asks(t, redisServer, policy.Run, "chmod", 0, 0o644), Harmless},
		{"the file's mode, and its owner's rights", "redis", asks(t, redisServer, policy.Run, "chmod", 0, 0o6755), Grave},
		{"asking for the personality", "redis", asks(t, redisServer, policy.Run, "personality", 0xffffffff), Harmless},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p := New(learned(t, test.service), nil)
			h := p.hear(test.q, Evidence{})
			if h.risk.level != test.want || h.risk.why == "" {
				t.Errorf("%v, %s; want %v", h.risk.level, h.risk.why, test.want)
			}
			if v := voted(t, p, byRisk, test.q, Evidence{}); v.Stance == Veto != (test.want == Forbidden) || v.Stance == For {
				t.Errorf("%+v", v)
			}
		})
	}
}

// TestReopened: what the panel remembers is what package cve says, for calls without arguments that matter.
func TestReopened(t *testing.T) {
	for _, service := range []string{"nginx", "redis", "httpd"} {
		p := New(learned(t, service), nil)
		for n := range syscalls.Known(syscalls.X86_64).All() {
			c := syscalls.Call{ABI: syscalls.X86_64, Nr: n}
			if slices.Contains([]string{"socket", "setsockopt", "clone"}, c.String()) {
				continue
			}
			var want []string
			for _, v := range cve.Reopened(p.memory.abis, p.memory.allowed, c) {
				want = append(want, v.ID)
			}
			for range 2 { // the second time from memory
				if got, _ := p.memory.reopened(c, [6]uint64{}); !slices.Equal(got, want) {
					t.Errorf("%s, %v: got %v, want %v", service, c, got, want)
				}
			}
		}
	}
}

// TestMemoryIsBounded whatever a container asks for.
func TestMemoryIsBounded(t *testing.T) {
	m := newMemory(learned(t, "redis"))
	for n := range uint32(3 * maxMemory) {
		var did syscalls.Set
		did[n%16] = uint64(n)
		m.best(certain{}, syscalls.Call{ABI: syscalls.X86_64, Nr: n % 300}, did)
	}
	if len(m.rules) > maxMemory {
		t.Errorf("%d rules are kept", len(m.rules))
	}
}

// TestNamesExist: a misspelt name in a table would protect nothing.
func TestNamesExist(t *testing.T) {
	exists := func(name string) bool {
		return slices.ContainsFunc(syscalls.ABIs[:], func(abi syscalls.ABI) bool {
			_, ok := syscalls.Number(abi, name)
			return ok
		})
	}
	for name, why := range never {
		if !exists(name) || why == "" {
			t.Errorf("never: no ABI has %q, or it has no reason", name)
		}
	}
	for name := range taught {
		if never[name] == "" {
			t.Errorf("taught: %q is not in the veto list", name)
		}
	}
	for name := range byChance {
		if !exists(name) || never[name] != "" {
			t.Errorf("byChance: no ABI has %q, or it is in the veto list", name)
		}
	}
	for name := range uses {
		if !exists(name) {
			t.Errorf("uses: no ABI has %q", name)
		}
	}
	for name := range hidden {
		if !exists(name) {
			t.Errorf("hidden: no ABI has %q", name)
		}
	}
	for name, class := range map[string]string{"fork": startsProcesses, "kill": signals, "connect": reachesOut} {
		if got := plan.Critical(call(t, name)); got != class {
			t.Errorf("package plan says of %s: %q", name, got)
		}
	}
	if got := len(gates().args); got > 16 {
		t.Errorf("%d arguments of gates do not fit into an opening", got)
	}
}

// TestOnly: a panel without a judge has no vote of it, and none of its demands.
func TestOnly(t *testing.T) {
	p := New(learned(t, "redis"), certain{})
	q := asks(t, redisServer, policy.Run, "setuid")
	for i, name := range Names {
		if d := p.Only(name).Decide(q, everything()); len(d.Votes) != 1 || d.Votes[0].Judge != name || i != byRisk && d.Needed != need[Harmless] {
			t.Errorf("only %s: %v", name, d.Lines())
		}
		d := p.Without(name).Decide(q, everything())
		if len(d.Votes) != judges-1 || slices.ContainsFunc(d.Votes, func(v Vote) bool { return v.Judge == name }) {
			t.Errorf("without %s: %v", name, d.Lines())
		}
	}
	injected := everything()
	injected.Origin.Class = Stack
	if d := p.Without("origin").Decide(q, injected); d.Verdict != Learn {
		t.Errorf("without origin: %v", d.Lines())
	}
	if d := p.Without("risk").Decide(asks(t, redisServer, policy.Run, "bpf"), everything()); d.Verdict != Learn {
		t.Errorf("without risk: %v", d.Lines())
	}
	if d := p.Without("origin").Without("risk").Only("fleet", "risk").Decide(q, everything()); len(d.Votes) != 1 {
		t.Errorf("both: %v", d.Lines())
	}
	if d := p.Decide(q, everything()); len(d.Votes) != judges {
		t.Errorf("the panel itself was changed: %v", d.Lines())
	}
	defer func() {
		if recover() == nil {
			t.Error("a judge that does not exist is taken")
		}
	}()
	p.Only("oracle")
}
