// SPDX-License-Identifier: Apache-2.0

package judge

import (
	"os"
	"sync"
	"testing"

	"github.com/whittle-sec/whittle/internal/learn"
	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
	"github.com/whittle-sec/whittle/internal/workload"
)

const (
	nginxMaster = "/usr/sbin/nginx:0"
	nginxWorker = "/usr/sbin/nginx:1"
	postmaster  = "/usr/lib/postgresql/15/bin/postgres:0"
	backend     = "/usr/lib/postgresql/15/bin/postgres:1"
	redisServer = "/usr/bin/redis-server:0"
	apache      = "/usr/sbin/apache2:0"
	apacheChild = "/usr/sbin/apache2:1"
)

func nr(t testing.TB, name string) uint32 {
	t.Helper()
	n, ok := syscalls.Number(syscalls.X86_64, name)
	if !ok {
		t.Fatalf("x86-64 has no call %q", name)
	}
	return n
}

func call(t testing.TB, name string) syscalls.Call {
	t.Helper()
	return syscalls.Call{ABI: syscalls.X86_64, Nr: nr(t, name)}
}

func set(t testing.TB, names ...string) (s syscalls.Set) {
	t.Helper()
	for _, name := range names {
		s.Add(nr(t, name))
	}
	return s
}

// learned is the policy that learning proposes for a recorded service, without some calls: as if it had not made them.
func learned(t testing.TB, service string, without ...string) policy.Policy {
	t.Helper()
	var p policy.Policy
	if service == "httpd" {
		p = httpd(t)
	} else {
		p = policy.Normal(proposed(t, service))
	}
	gone := set(t, without...)
	for _, calls := range p.ABIs {
		for phase, s := range calls.Phases {
			calls.Phases[phase] = s.Minus(gone)
		}
		for role, r := range calls.Roles {
			for phase, s := range r.Phases {
				r.Phases[phase] = s.Minus(gone)
			}
			r.Birth = r.Birth.Minus(gone)
			calls.Roles[role] = r
		}
		for n := range gone.All() {
			delete(calls.Args, n)
			delete(calls.Evidence, n)
		}
	}
	return p
}

var (
	proposedMu sync.Mutex
	proposals  = map[string]policy.Policy{}
)

// proposed by learning, once for all tests.
func proposed(t testing.TB, service string) policy.Policy {
	t.Helper()
	proposedMu.Lock()
	defer proposedMu.Unlock()
	if p, ok := proposals[service]; ok {
		return p
	}
	f, err := os.Open("../learn/testdata/" + service + ".trace.json.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	trace, err := observe.Read(f)
	if err != nil {
		t.Fatal(err)
	}
	p := learn.Propose(workload.Workload{Image: service}, trace, learn.Analyse(trace, learn.Default()))
	proposals[service] = p
	return p
}

// httpd is a policy by hand, of httpd 2.4 with prefork, as there is no recorded trace of it.
func httpd(t testing.TB) policy.Policy {
	birth := set(t, "access", "arch_prctl", "bind", "brk", "chmod", "clone", "close", "epoll_create1", "fcntl", "futex", "getpid",
		"getrandom", "getuid", "geteuid", "ioctl", "listen", "lseek", "mmap", "mprotect", "munmap", "newfstatat", "openat", "pipe2",
		"pread64", "prlimit64", "read", "rt_sigaction", "rt_sigprocmask", "set_robust_list", "set_tid_address", "setsockopt",
		"socket", "uname", "unlink", "write")
	run := set(t, "wait4", "pselect6", "clone", "rt_sigreturn")
	childBirth := set(t, "close", "epoll_create1", "epoll_ctl", "getpid", "mmap", "munmap", "openat", "read", "rt_sigaction",
		"rt_sigprocmask", "set_robust_list", "setgid", "setgroups", "setuid", "semop", "fcntl", "prctl")
	childRun := set(t, "accept4", "getsockname", "epoll_wait", "read", "write", "writev", "shutdown", "close", "openat", "newfstatat",
		"mmap", "munmap", "fcntl", "poll", "times")
	boot := birth.Union(childBirth)
	return policy.Policy{Workload: workload.Workload{Image: "httpd"}, Complete: true, ABIs: map[syscalls.ABI]*policy.Calls{
		syscalls.X86_64: {
			Phases: map[policy.Phase]syscalls.Set{policy.Boot: boot, policy.Run: run.Union(childRun).Union(childBirth)},
			Roles: map[string]policy.RoleCalls{
				apache:      {Phases: map[policy.Phase]syscalls.Set{policy.Run: run}, Birth: birth},
				apacheChild: {Phases: map[policy.Phase]syscalls.Set{policy.Run: childRun}, Birth: childBirth},
			},
			Args: map[uint32][]policy.ArgRule{
				nr(t, "clone"):  {{Index: 0, Mask: 0x7E020080}},
				nr(t, "socket"): {{Index: 0, Mask: 0xffffffff, Value: 2}, {Index: 0, Mask: 0xffffffff, Value: 10}},
			},
		},
	}}
}

// rules are Associations as package corpus has them, but few and by hand.
type rules []Rule

func (rs rules) Best(c syscalls.Call, did syscalls.Set) (best Rule, ok bool) {
	for _, r := range rs {
		then, found := syscalls.Number(c.ABI, r.Then)
		if same := syscalls.Equivalents(c); !found || !same.Has(then) {
			continue
		}
		within := true
		for _, name := range r.If {
			n, found := syscalls.Number(c.ABI, name)
			within = within && found && did.Has(n)
		}
		if within && (!ok || r.Lower > best.Lower) {
			best, ok = r, true
		}
	}
	return best, ok
}

func weak(then string, with ...string) Rule {
	return Rule{If: with, Then: then, Support: 0.004, Confidence: 0.41, Lower: 0.33, Lift: 4.2, Of: 4000, Sources: []string{"haproxy"}}
}

func strong(then string, with ...string) Rule {
	return Rule{If: with, Then: then, Support: 0.01, Confidence: 0.91, Lower: 0.84, Lift: 6, Of: 4000,
		Sources: []string{"haproxy", "lighttpd", "php-fpm"}}
}

// corpus is the kind of rules that other services give.
func corpus() rules {
	return rules{
		weak("kill", "wait4"), weak("tgkill", "rt_sigreturn"), strong("kill", "sendmsg", "wait4"), weak("clone", "openat", "madvise"),
		weak("mremap", "pwrite64"), weak("unlink", "openat"), weak("sysinfo", "wait4"), weak("connect", "accept4", "epoll_ctl"),
		strong("exit_group", "close"), weak("setuid", "setgid"),
	}
}

// image says that the instruction is the C library's, which a program's own calls and an intruder's borrowed ones share.
var image = Origin{Class: File, Path: "/lib/x86_64-linux-gnu/libc.so.6", Offset: 0x11ac3f, BuildID: "82ce4e6e4ef08fa58a3535f7437bd3e592db5ac0"}

func imports(object, symbol string) Evidence {
	return Evidence{Origin: image, Import: Import{Carrier: Imports, Object: object, Symbol: symbol, Objects: 9}}
}

// borrowed is the evidence of a call that nothing in the process needs.
func borrowed() Evidence { return Evidence{Origin: image, Import: Import{Carrier: None, Objects: 9}} }

func asks(t testing.TB, role string, phase policy.Phase, name string, args ...uint64) Question {
	t.Helper()
	q := Question{Call: call(t, name), Lane: observe.LaneService, Phase: phase, Role: role, Refusal: "not in the policy", Novel: true}
	copy(q.Args[:], args)
	return q
}
