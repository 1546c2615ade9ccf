// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"os"
	"slices"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/whittle-sec/whittle/internal/filter"
	"github.com/whittle-sec/whittle/internal/learn"
	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
	"github.com/whittle-sec/whittle/internal/workload"
)

const (
	x86 = syscalls.X86_64
	// The roles of the recorded services.
	redis         = "/usr/bin/redis-server:0"
	nginxMaster   = "/usr/sbin/nginx:0"
	nginxWorker   = "/usr/sbin/nginx:1"
	postmaster    = "/usr/lib/postgresql/15/bin/postgres:0"
	backend       = "/usr/lib/postgresql/15/bin/postgres:1"
	memcachedRole = "/usr/bin/memcached:0"
)

var recorded = []string{"memcached", "nginx", "node", "postgres", "python", "redis"}

// learned is the policy of a recorded service, learned anew.
func learned(t testing.TB, name string) policy.Policy {
	t.Helper()
	f, err := os.Open("../learn/testdata/" + name + ".trace.json.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	trace, err := observe.Read(f)
	if err != nil {
		t.Fatal(err)
	}
	return learn.Propose(workload.Workload{Image: name, Command: []string{name}}, trace, learn.Analyse(trace, learn.Default()))
}

func call(t testing.TB, name string) syscalls.Call {
	t.Helper()
	nr, ok := syscalls.Number(x86, name)
	if !ok {
		t.Fatalf("no call %s", name)
	}
	return syscalls.Call{ABI: x86, Nr: nr}
}

func service(phase policy.Phase, role string, birth bool) Asker {
	return Asker{Lane: observe.LaneService, Phase: phase, Role: role, Birth: birth}
}

// What the services lose once they serve, and what their masters and new workers keep.
func TestRecordedServices(t *testing.T) {
	const boot, run, reload, stop = policy.Boot, policy.Run, policy.Reload, policy.Stop
	rights := []string{"setuid", "setgid", "setgroups"}
	gone := []string{"execve", "clone", "clone3", "fork", "vfork", "setuid", "setgid", "setgroups", "bind", "listen", "connect", "mprotect", "ptrace"}
	for _, test := range []struct {
		name, service string
		asker         Asker
		calls         []string
		want          policy.Action
	}{
		{"redis boots", "redis", service(boot, redis, true), []string{"bind", "listen", "clone3", "mprotect", "socket"}, policy.Allow},
		{"redis serves", "redis", service(run, redis, false), append([]string{"socket"}, gone...), policy.Refuse},
		{"redis stops", "redis", service(stop, redis, false), append([]string{"socket"}, gone...), policy.Refuse},
		{"somebody in redis", "redis", service(run, "/tmp/x:0", false), append([]string{"socket"}, gone...), policy.Refuse},
		{"memcached boots", "memcached", service(boot, memcachedRole, true), append([]string{"bind"}, rights...), policy.Allow},
		{"memcached serves", "memcached", service(run, memcachedRole, false), gone, policy.Refuse},

		{"nginx's master boots", "nginx", service(boot, nginxMaster, true), []string{"bind", "listen", "clone"}, policy.Allow},
		{"a worker is born", "nginx", service(boot, nginxWorker, true), rights, policy.Allow},
		{"a worker is born again while running", "nginx", service(run, nginxWorker, true), rights, policy.Allow},
		{"a worker is born in a reload", "nginx", service(reload, nginxWorker, true), rights, policy.Allow},
		{"a worker serves", "nginx", service(run, nginxWorker, false), gone, policy.Refuse},
		{"an old worker in a reload", "nginx", service(reload, nginxWorker, false), gone, policy.Refuse},
		{"the master reloads", "nginx", service(reload, nginxMaster, false), []string{"clone", "socketpair", "sendmsg", "wait4"}, policy.Allow},
		{"the master runs", "nginx", service(run, nginxMaster, false), []string{"execve", "bind", "setuid"}, policy.Refuse},

		{"the postmaster runs", "postgres", service(run, postmaster, false), []string{"clone", "kill", "setsockopt"}, policy.Allow},
		{"the postmaster stops", "postgres", service(stop, postmaster, false), []string{"clone", "unlink", "shmctl"}, policy.Allow},
		{"the postmaster runs no programs", "postgres", service(run, postmaster, false), []string{"execve", "bind", "setresuid"}, policy.Refuse},
		{"a backend is born", "postgres", service(run, backend, true), []string{"setsid", "epoll_ctl", "signalfd4"}, policy.Allow},
		{"a backend serves", "postgres", service(run, backend, false), append([]string{"shmget", "setresuid"}, gone...), policy.Refuse},
		{"a backend in a reload that was never learned", "postgres", service(reload, backend, false), append([]string{"setresuid"}, gone...), policy.Refuse},
		{"a role that is not known", "postgres", service(run, "", false), []string{"clone", "execve", "setresuid"}, policy.Refuse},
		{"a lane that is not known", "postgres", Asker{Phase: run, Role: postmaster}, []string{"clone"}, policy.Refuse},
		{"the runtime", "postgres", Asker{Lane: observe.LaneRuntime, Phase: boot}, []string{"execve", "capset", "setuid"}, policy.Allow},
		{"a shell that was never learned", "redis", Asker{Lane: observe.LaneExec, Phase: run}, []string{"execve", "clone", "mprotect", "statx", "bind"}, policy.Allow},
		{"a shell's kernel exploit", "redis", Asker{Lane: observe.LaneExec, Phase: run}, []string{"bpf", "ptrace", "unshare", "keyctl"}, policy.Refuse},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := Make(learned(t, test.service), Default())
			for _, name := range test.calls {
				args := [6]uint64{}
				if name == "socket" {
					args[0] = 2
				}
				got := p.Answer(test.asker, call(t, name), args)
				if got.Action != test.want {
					t.Errorf("%s: %v (%s), want %v", name, got.Action, got.Why, test.want)
				}
				if got.Why == "" || (got.Errno == 0) != (got.Action == policy.Allow) {
					t.Errorf("%s: %+v", name, got)
				}
				for _, e := range p.Entries() {
					if e.Call == call(t, name) && e.Place == Open && test.want == policy.Refuse {
						t.Errorf("%s is open: %s", name, e.Why)
					}
				}
			}
		})
	}
}

// A call of the postmaster's with arguments that were never seen.
func TestArguments(t *testing.T) {
	p := Make(learned(t, "postgres"), Default())
	asker := service(policy.Run, postmaster, false)
	if got := p.Answer(asker, call(t, "clone"), [6]uint64{0x01200011}); got.Action != policy.Allow {
		t.Errorf("fork: %+v", got)
	}
	got := p.Answer(asker, call(t, "clone"), [6]uint64{0x10000000})
	if want := (Answer{Errno: policy.EPERM, Why: "not with these arguments", Arguments: true}); got != want {
		t.Errorf("clone with a user namespace: got %+v, want %+v", got, want)
	}
}

func TestNovel(t *testing.T) {
	p := Make(learned(t, "redis"), Default())
	for _, test := range []struct {
		call syscalls.Call
		want Answer
	}{
		{call(t, "execve"), Answer{Errno: policy.EPERM, Novel: true, Why: "not in the policy"}},
		{call(t, "execveat"), Answer{Errno: policy.ENOSYS, Novel: true, Why: "not in the policy"}},
		{call(t, "bind"), Answer{Errno: policy.EPERM, Why: redis + ` makes it only while it is starting`}},
		{syscalls.Call{ABI: x86, Nr: 1000}, Answer{Errno: policy.ENOSYS, Novel: true, Why: "has no name"}},
		{syscalls.Call{ABI: x86, Nr: 1 << 30}, Answer{Errno: policy.ENOSYS, Novel: true, Why: "no kernel has the number"}},
		{syscalls.Call{ABI: syscalls.I386, Nr: 3}, Answer{Errno: policy.ENOSYS, Novel: true, Why: "the workload was never seen using the i386 calls"}},
	} {
		if got := p.Answer(service(policy.Run, redis, false), test.call, [6]uint64{}); got != test.want {
			t.Errorf("%v: got %+v, want %+v", test.call, got, test.want)
		}
	}
}

// The filters of every recorded service load, decide as the rules, let hot calls through without being run, and can be
// given to runc.
func TestFilters(t *testing.T) {
	for _, name := range recorded {
		t.Run(name, func(t *testing.T) {
			p := Make(learned(t, name), Default())
			arch, _ := syscalls.AuditArch(x86)
			for at, rules := range map[string]*filter.Rules{"booting": p.Booting(), "running": p.Running()} {
				prog, err := filter.Compile(rules)
				if err != nil {
					t.Fatal(err)
				}
				for nr := range uint32(2 * syscalls.MaxNr) {
					d := filter.Data{Nr: nr, Arch: arch}
					got, err := filter.Run(prog, &d)
					if want := rules.Decide(d); err != nil || got != want {
						t.Fatalf("%s, number %d: %v %v, want %v", at, nr, got, err, want)
					}
				}
				for _, e := range p.Entries() {
					if e.Place == Open && !filter.ConstAllow(prog, arch, e.Call.Nr) {
						t.Errorf("%s: the kernel runs the filter for %v, which is %s", at, e.Call, e.Why)
					}
				}
				profile, err := filter.OCI(rules)
				if err != nil {
					t.Fatal(err)
				}
				for _, entry := range profile.Syscalls {
					if entry.Action == specs.ActNotify && slices.Contains(entry.Names, "write") {
						t.Errorf("%s: runc refuses a profile that holds write", at)
					}
				}
			}
		})
	}
}

// What booting asks about stays few, and so does what serving asks about: the bars are 50 ms of a boot at 20 µs a call, and
// 0.5 % of a core in all.
func TestCost(t *testing.T) {
	for _, name := range recorded {
		t.Run(name, func(t *testing.T) {
			learned := learned(t, name)
			p := Make(learned, Default())
			var held uint64
			var cost float64
			for _, e := range p.Entries() {
				if e.Place == Held && !e.Bulk {
					held += learned.ABIs[x86].Evidence[e.Call.Nr].Phases[policy.Boot]
					cost += e.Cost
				}
			}
			if held > 2500 || cost > 0.005 {
				t.Errorf("booting asks %d times, serving costs %.2g of a core", held, cost)
			}
		})
	}
}

func TestBulk(t *testing.T) {
	p := Make(learned(t, "postgres"), Default())
	ioctl := call(t, "ioctl")
	if !p.HasBulk() || p.Booting().Tables[x86].Actions[ioctl.Nr] != filter.Allow ||
		p.Running().Tables[x86].Actions[ioctl.Nr] != filter.Notify {
		t.Error("what initdb makes ten thousand times is not open while booting and held after")
	}
	if got := p.Answer(service(policy.Run, backend, false), ioctl, [6]uint64{}); got.Action != policy.Refuse {
		t.Errorf("after the boot: %+v", got)
	}
	if Make(learned(t, "redis"), Default()).HasBulk() {
		t.Error("redis has bulk")
	}
}

func TestColumns(t *testing.T) {
	for _, name := range recorded {
		t.Run(name, func(t *testing.T) {
			columns := Make(learned(t, name), Default()).Columns()
			if len(columns) != len(policy.Phases) {
				t.Fatalf("%d columns", len(columns))
			}
			boot, run := columns[0], columns[1]
			if boot.Removes != nil || run.Removes[x86].Len() < 10 || run.Neutralised <= boot.Neutralised {
				t.Errorf("running removes %v and neutralises %d CVEs, booting %d", run.Removes[x86].Names(x86), run.Neutralised, boot.Neutralised)
			}
			for _, c := range columns[2:] {
				if !c.Calls[x86].Contains(run.Calls[x86]) {
					t.Errorf("%v takes away from run", c.Phase)
				}
			}
		})
	}
}
