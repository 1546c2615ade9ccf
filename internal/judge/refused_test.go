// SPDX-License-Identifier: Apache-2.0

package judge

import (
	"strings"
	"testing"

	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// TestBorrowedCallsAreNotAccepted: calls from the C library that nothing in the process needs. Whatever they are, a rule of
// association that is weak does not make up for it.
func TestBorrowedCallsAreNotAccepted(t *testing.T) {
	all := rules{}
	for n := range syscalls.Known(syscalls.X86_64).All() {
		all = append(all, weak(syscalls.Name(syscalls.X86_64, n)))
	}
	calls := []string{"splice", "vmsplice", "tee", "memfd_create", "msgget", "shmat", "add_key", "symlink", "personality",
		"sethostname", "setsockopt", "pidfd_open", "seccomp", "mq_open", "inotify_init1", "sched_setattr", "ioprio_set", "setxattr",
		"fork", "clone", "kill", "setuid", "capset", "connect"}
	for _, service := range []struct{ name, role string }{{"nginx", nginxWorker}, {"postgres", backend}, {"redis", redisServer}} {
		p := New(learned(t, service.name, calls...), all)
		for _, name := range calls {
			q := asks(t, service.role, policy.Run, name, 3, 41, 67)
			if d := p.Decide(q, borrowed()); d.Verdict > Ask {
				t.Errorf("%s %s: %s", service.name, name, strings.Join(d.Lines(), "\n"))
			}
		}
	}
}

// TestImportIsNotEnough for a critical call: the program imports it, and that is all that speaks for it.
func TestImportIsNotEnough(t *testing.T) {
	tests := []struct {
		service, role, call string
		args                []uint64
	}{
		{"nginx", nginxWorker, "setuid", nil}, // in the policy, for a worker that is being born
		{"nginx", nginxWorker, "setgroups", nil},
		{"nginx", nginxWorker, "clone", []uint64{17}}, // the master's
		{"nginx", nginxWorker, "bind", nil},
		{"nginx", nginxWorker, "listen", nil},
		{"nginx", nginxWorker, "kill", []uint64{1, 9}},
		{"nginx", nginxMaster, "bind", nil}, // of its boot
		{"postgres", backend, "socket", []uint64{2, 1}},
		{"postgres", backend, "connect", nil},
		{"postgres", backend, "clone", []uint64{17}}, // the postmaster's
		{"postgres", backend, "setresuid", nil},
		{"postgres", "/bin/sh:0", "connect", nil},
		{"redis", redisServer, "bind", nil},
		{"redis", redisServer, "listen", nil},
		{"redis", redisServer, "kill", []uint64{1, 9}},
		{"redis", redisServer, "memfd_create", nil},
		{"redis", redisServer, "chmod", []uint64{0x55, 0o4755}},
		{"redis", redisServer, "prctl", []uint64{47, 2, 7}},
	}
	for _, test := range tests {
		p := New(learned(t, test.service), nil)
		d := p.Decide(asks(t, test.role, policy.Run, test.call, test.args...), imports("/usr/sbin/x", test.call))
		if d.Verdict != Ask {
			t.Errorf("%s %s: %s", test.role, test.call, strings.Join(d.Lines(), "\n"))
		}
	}
}

// TestRulesDoNotMovePlaces: a strong rule and the import do not give a worker what is its master's, nor a phase what is
// another's.
func TestRulesDoNotMovePlaces(t *testing.T) {
	tests := []struct{ service, role, call string }{
		{"nginx", nginxWorker, "setuid"}, {"nginx", nginxWorker, "clone"}, {"nginx", nginxWorker, "fork"},
		{"nginx", nginxWorker, "listen"}, {"nginx", nginxMaster, "bind"},
		{"postgres", backend, "clone"}, {"postgres", backend, "connect"}, {"postgres", postmaster, "listen"}, {"redis", redisServer, "bind"},
		{"redis", redisServer, "listen"}, {"redis", redisServer, "clone3"},
	}
	for _, test := range tests {
		p := New(learned(t, test.service), certain{})
		if d := p.Decide(asks(t, test.role, policy.Run, test.call), imports("/usr/sbin/x", test.call)); d.Verdict != Ask {
			t.Errorf("%s %s: %s", test.role, test.call, strings.Join(d.Lines(), "\n"))
		}
	}
}

// everything is the strongest evidence that there can be.
func everything() Evidence {
	return Evidence{Origin: image, Import: Import{Carrier: Imports, Object: "/usr/sbin/x", Symbol: "x", Objects: 9}, Fleet: Fleet{100, 100}}
}

// certain is a rule for every call.
type certain struct{}

func (certain) Best(c syscalls.Call, _ syscalls.Set) (Rule, bool) {
	return Rule{Then: c.String(), Support: 1, Confidence: 1, Lower: 1, Lift: 1000, Of: 1 << 40, Sources: []string{"a", "b", "c"}}, true
}

// TestNeverPasses: no evidence makes up for the veto list, in any phase or lane.
func TestNeverPasses(t *testing.T) {
	p := New(learned(t, "postgres"), certain{})
	for name := range never {
		n, ok := syscalls.Number(syscalls.X86_64, name)
		if !ok {
			continue
		}
		for _, phase := range policy.Phases {
			for _, lane := range []observe.Lane{observe.LaneNone, observe.LaneService, observe.LaneExec, observe.LaneRuntime} {
				q := Question{Call: syscalls.Call{ABI: syscalls.X86_64, Nr: n}, Lane: lane, Phase: phase, Role: postmaster, Birth: true}
				if d := p.Decide(q, everything()); d.Verdict != Refuse {
					t.Errorf("%s, %v lane, %v: %v", name, lane, phase, d.Verdict)
				}
			}
		}
	}
}

// TestStartsProgram: those two, which an oracle may teach, and nothing else of the veto list.
func TestStartsProgram(t *testing.T) {
	for nr := range uint32(syscalls.MaxNr) {
		call := syscalls.Call{ABI: syscalls.X86_64, Nr: nr}
		if name := call.String(); StartsProgram(call) != (name == "execve" || name == "execveat") {
			t.Errorf("%s: %v", name, StartsProgram(call))
		}
	}
}

func TestArgumentsThatNeverPass(t *testing.T) {
	tests := []struct {
		call string
		args []uint64
	}{
		{"clone", []uint64{0x10000011}},                // CLONE_NEWUSER
		{"clone", []uint64{0xffffffff_10000011}},       // with rubbish above
		{"clone", []uint64{0x00020011}},                // CLONE_NEWNS
		{"socket", []uint64{17, 3, 0x300}},             // AF_PACKET
		{"socket", []uint64{38, 5}},                    // AF_ALG
		{"socket", []uint64{40, 1}},                    // AF_VSOCK
		{"socket", []uint64{16, 3, 12}},                // NETLINK_NETFILTER
		{"socket", []uint64{2, 3 | 0o2000000, 1}},      // a raw one, close-on-exec
		{"socket", []uint64{0xffffffff_00000026, 5}},   // AF_ALG
		{"mprotect", []uint64{0x1000, 0x1000, 7}},      // data becomes code
		{"mprotect", []uint64{0x1000, 0x1000, 5}},      //
		{"pkey_mprotect", []uint64{0x1000, 0x1000, 4}}, //
		{"mmap", []uint64{0, 0x1000, 7, 0x22}},         // anonymous code
		{"mmap", []uint64{0, 0x1000, 7, 0x2, 5}},       // writable code
		{"ioctl", []uint64{0, 0x5412}},                 // TIOCSTI
		{"ioctl", []uint64{0, 0x1_00005412}},           // the kernel takes an int
		{"ioctl", []uint64{0, 0x541c}},                 // TIOCLINUX
		{"prctl", []uint64{35, 1}},                     // PR_SET_MM
		{"prctl", []uint64{0x59616d61, 1}},             // PR_SET_PTRACER
		{"personality", []uint64{0x400000}},            // READ_IMPLIES_EXEC
		{"personality", []uint64{0x40000}},             // ADDR_NO_RANDOMIZE
		{"setsockopt", []uint64{3, 0, 64}},             // IPT_SO_SET_REPLACE
		{"setsockopt", []uint64{3, 263, 5}},            // PACKET_RX_RING
		{"mknod", []uint64{0x55, 0o020666, 0x101}},
		{"mknodat", []uint64{3, 0x55, 0o060666, 0x800}},
	}
	p := New(learned(t, "redis"), certain{})
	for _, test := range tests {
		for _, arguments := range []bool{false, true} {
			q := asks(t, redisServer, policy.Reload, test.call, test.args...)
			q.Arguments = arguments
			if d := p.Decide(q, everything()); d.Verdict != Refuse {
				t.Errorf("%s %#x: %s", test.call, test.args, strings.Join(d.Lines(), "\n"))
			}
		}
	}
}

// TestArgumentsOfAllowedCalls: the call is in the policy, with other arguments.
func TestArgumentsOfAllowedCalls(t *testing.T) {
	tests := []struct {
		name, service, role, call string
		args                      []uint64
		want                      Verdict
	}{
		{"IPv6 beside IPv4", "nginx", nginxMaster, "socket", []uint64{10, 1}, Once},
		{"a socket to syslog, where AF_UNIX is no way in that was closed", "nginx", nginxMaster, "socket", []uint64{1, 2}, Once},
		{"AF_UNIX, which re-opens CVEs here", "redis", redisServer, "socket", []uint64{1, 2}, Ask},
		{"netlink, which re-opens many with clone3's flags unseen", "redis", redisServer, "socket", []uint64{16, 3, 0}, Ask},
		{"namespaces", "nginx", nginxMaster, "clone", []uint64{0x10000000}, Refuse},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			q := asks(t, test.role, policy.Reload, test.call, test.args...)
			q.Arguments = true
			p := New(learned(t, test.service), certain{})
			if d := p.Decide(q, imports("/usr/sbin/x", test.call)); d.Verdict != test.want {
				t.Errorf("want %v: %s", test.want, strings.Join(d.Lines(), "\n"))
			}
		})
	}
}

func TestVetoesOfOrigin(t *testing.T) {
	p := New(learned(t, "nginx"), certain{})
	for c := Unknown; c <= Anonymous+2; c++ {
		e := everything()
		e.Origin = Origin{Class: c}
		d := p.Decide(asks(t, nginxWorker, policy.Run, "umask"), e)
		if passes := c == Unknown || c == File || c == Vdso; passes != (d.Verdict == Learn) || !passes && d.Verdict != Refuse {
			t.Errorf("from %v: %v", c, d.Verdict)
		}
	}
}

// TestUnknownOriginWantsMore than a known one does.
func TestUnknownOriginWantsMore(t *testing.T) {
	p := New(learned(t, "nginx"), corpus())
	q := asks(t, nginxMaster, policy.Run, "kill", 77, 3)
	known, unknown := p.Decide(q, everything()), p.Decide(q, Evidence{Import: everything().Import})
	if known.Verdict < Once || unknown.Verdict != Ask || unknown.Needed != known.Needed+1 {
		t.Errorf("known: %v, unknown: %v", known.Lines(), unknown.Lines())
	}
}

func TestWhatIsNotJudged(t *testing.T) {
	p := New(learned(t, "nginx"), certain{})
	withheld := asks(t, nginxWorker, policy.Run, "umask")
	withheld.Withheld = true
	i386 := asks(t, nginxWorker, policy.Run, "umask")
	i386.Call.ABI = syscalls.I386
	unnamed := asks(t, nginxWorker, policy.Run, "umask")
	unnamed.Call.Nr = 900
	huge := unnamed
	huge.Call.Nr = 1 << 31
	runtime := asks(t, nginxWorker, policy.Run, "umask")
	runtime.Lane = observe.LaneRuntime
	taken := learned(t, "nginx", "umask")
	taken.ABIs[syscalls.X86_64].Withheld = map[uint32]string{nr(t, "umask"): "by root"}
	if d := New(taken, certain{}).Decide(asks(t, nginxWorker, policy.Run, "umask"), everything()); d.Verdict != Refuse {
		t.Errorf("withheld: %s", strings.Join(d.Lines(), "\n"))
	}
	for name, q := range map[string]Question{"zero": {}, "withheld": withheld, "another architecture": i386, "a number without a name": unnamed,
		"a number that no set holds": huge, "the runtime": runtime} {
		if d := p.Decide(q, everything()); d.Verdict != Refuse || d.Why == "" {
			t.Errorf("%s: %v %q", name, d.Verdict, d.Why)
		}
		if d := New(policy.Policy{}, nil).Decide(q, Evidence{}); d.Verdict != Refuse {
			t.Errorf("%s, by an empty policy: %v", name, d.Verdict)
		}
	}
	odd := asks(t, nginxWorker, policy.Phase(9), "umask")
	if d := p.Decide(odd, borrowed()); d.Verdict > Ask {
		t.Errorf("an unknown phase: %v", d.Lines())
	}
}

// TestOnceAtMost: what teaches nothing is not learned, whatever speaks for it.
func TestOnceAtMost(t *testing.T) {
	p := New(learned(t, "nginx"), certain{})
	exec := asks(t, "/bin/sh:0", policy.Run, "umask")
	exec.Lane = observe.LaneExec
	nobody := asks(t, "", policy.Run, "umask")
	arguments := asks(t, nginxMaster, policy.Run, "socket", 10, 1)
	arguments.Arguments = true
	child := asks(t, "/usr/bin/redis-server:1", policy.Run, "umask")
	if d := New(learned(t, "redis"), certain{}).Decide(child, everything()); d.Verdict != Once {
		t.Errorf("a child of who had none: %s", strings.Join(d.Lines(), "\n"))
	}
	for name, q := range map[string]Question{"exec": exec, "nobody": nobody, "arguments": arguments,
		"arguments that matter": asks(t, nginxMaster, policy.Reload, "mprotect", 0, 4096, 3)} {
		if d := p.Decide(q, everything()); d.Verdict != Once {
			t.Errorf("%s: %s", name, strings.Join(d.Lines(), "\n"))
		}
	}
}

// TestQuarantinedNeedsMore than what was never seen: whoever taught it may be there still.
func TestQuarantinedNeedsMore(t *testing.T) {
	const name = "setxattr"
	q, e := asks(t, redisServer, policy.Run, name), imports("/usr/bin/redis-server", name)
	p := learned(t, "redis")
	before := New(p, rules{weak(name)}).Decide(q, e)
	p.ABIs[syscalls.X86_64].Quarantined = map[uint32]string{nr(t, name): "made in 1 of 3 runs only"}
	after := New(p, rules{weak(name)}).Decide(q, e)
	if before.Verdict != Once || after.Verdict != Ask || after.Needed != before.Needed+1 {
		t.Errorf("before: %v\nafter: %v", before.Lines(), after.Lines())
	}
}
