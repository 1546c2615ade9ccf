// SPDX-License-Identifier: Apache-2.0

package syscalls

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// onlyMultiplexed are calls that exist in i386 only through socketcall and ipc, and in no other ABI by number.
var onlyMultiplexed = []string{"send", "recv"}

func TestEveryNameExists(t *testing.T) {
	exists := func(name string) bool {
		return slices.ContainsFunc(ABIs[:], func(a ABI) bool { _, ok := Number(a, name); return ok })
	}
	check := func(where string, names ...string) {
		for _, name := range names {
			if !exists(name) && !slices.Contains(onlyMultiplexed, name) {
				t.Errorf("%s: no ABI has %q", where, name)
			}
		}
	}
	grouped := map[string]bool{}
	for _, group := range same {
		check("same", group...)
		for _, name := range group {
			if grouped[name] {
				t.Errorf("%s is in two groups", name)
			}
			grouped[name] = true
		}
	}
	for name, wider := range covers {
		check("covers", append(wider, name)...)
	}
	for name, calls := range multiplexers {
		check("multiplexers", append(calls, name)...)
	}
	check("own", ownNames[:]...)
}

func TestEquivalents(t *testing.T) {
	for _, test := range []struct {
		abi  ABI
		call string
		want []string
	}{
		{X86_64, "getpid", []string{"getpid"}},
		{X86_64, "#999", []string{"#999"}},
		{X86_64, "open", []string{"open", "openat", "openat2"}},
		{X86_64, "creat", []string{"creat", "open", "openat", "openat2"}},
		{X86_64, "execve", []string{"execve", "execveat"}},
		{X86_64, "clone", []string{"clone", "clone3"}},
		{X86_64, "vfork", []string{"clone", "clone3", "fork", "vfork"}},
		{X86_64, "fstat", []string{"fstat", "lstat", "newfstatat", "stat", "statx"}},
		{X86_64, "stat", []string{"lstat", "newfstatat", "stat", "statx"}},
		{X86_64, "waitid", []string{"waitid"}},
		{X86_64, "recvfrom", []string{"recvfrom", "recvmmsg", "recvmsg"}},
		{X86_64, "recvmsg", []string{"recvmmsg", "recvmsg"}},
		{X86_64, "epoll_wait", []string{"epoll_pwait", "epoll_pwait2", "epoll_wait"}},
		{X86_64, "socket", []string{"socket"}},
		{X86_64, "setuid", []string{"setresuid", "setreuid", "setuid"}},
		{I386, "setuid", []string{"setresuid", "setresuid32", "setreuid", "setreuid32", "setuid", "setuid32"}},
		{I386, "socket", []string{"socket", "socketcall"}},
		{I386, "socketcall", []string{"socketcall"}},
		{I386, "shmctl", []string{"ipc", "shmctl"}},
		{I386, "ppoll", []string{"poll", "ppoll", "ppoll_time64"}},
		{ARM64, "openat", []string{"openat", "openat2"}},
		{ARM64, "newfstatat", []string{"newfstatat", "statx"}},
		{X32, "execve", []string{"execve", "execveat"}},
	} {
		nr, ok := Number(test.abi, test.call)
		if !ok {
			t.Fatalf("%s has no %s", test.abi, test.call)
		}
		if d := cmp.Diff(test.want, Equivalents(Call{test.abi, nr}).Names(test.abi)); d != "" {
			t.Errorf("%s %s (-want +got):\n%s", test.abi, test.call, d)
		}
	}
}

// Over the whole number space: every call is its own equivalent, and an equivalent's equivalents are among them.
func TestEquivalentsAreTransitive(t *testing.T) {
	for _, abi := range ABIs {
		for nr := range uint32(MaxNr) {
			s := Equivalents(Call{abi, nr})
			if !s.Has(nr) {
				t.Errorf("%s %d is not its own equivalent", abi, nr)
			}
			for other := range s.All() {
				if !s.Contains(Equivalents(Call{abi, other})) {
					t.Errorf("%s: %s reaches %s but not all that this reaches", abi, Name(abi, nr), Name(abi, other))
				}
			}
		}
	}
	if s := Equivalents(Call{X86_64, MaxNr}); !s.Empty() {
		t.Errorf("a number past MaxNr has equivalents %v", s.Names(X86_64))
	}
	if s := Equivalents(Call{0, 1}); s != SetOf(1) {
		t.Errorf("a call of no ABI has equivalents %v", s.Names(0))
	}
}

func TestEquivalentsOfNamesThatTheABILacks(t *testing.T) {
	for _, test := range []struct {
		abi  ABI
		name string
		want []string
	}{
		{I386, "accept", []string{"accept4", "socketcall"}},
		{I386, "semop", []string{"ipc", "semtimedop_time64"}},
		{ARM64, "open", []string{"openat", "openat2"}},
		{ARM64, "fork", []string{"clone", "clone3"}},
		{ARM64, "uselib", []string{}},
		{X86_64, "no such call", []string{}},
	} {
		if d := cmp.Diff(test.want, EquivalentsOf(test.abi, test.name).Names(test.abi)); d != "" {
			t.Errorf("%s %s (-want +got):\n%s", test.abi, test.name, d)
		}
	}
}

func TestKernelOwn(t *testing.T) {
	for _, test := range []struct {
		abi  ABI
		want []string
	}{
		{X86_64, []string{"clock_getres", "clock_gettime", "exit", "exit_group", "getcpu", "getrandom", "gettimeofday",
			"restart_syscall", "rt_sigreturn", "time"}},
		{I386, []string{"clock_getres", "clock_getres_time64", "clock_gettime", "clock_gettime64", "exit", "exit_group", "getcpu",
			"gettimeofday", "restart_syscall", "rt_sigreturn", "sigreturn", "time"}},
		{X32, []string{"clock_getres", "clock_gettime", "exit", "exit_group", "getcpu", "getrandom", "gettimeofday",
			"restart_syscall", "rt_sigreturn", "time"}},
		{ARM64, []string{"clock_getres", "clock_gettime", "exit", "exit_group", "getrandom", "gettimeofday", "restart_syscall",
			"rt_sigreturn"}},
		{0, []string{}},
		{5, []string{}},
		{255, []string{}},
	} {
		if d := cmp.Diff(test.want, KernelOwn(test.abi).Names(test.abi)); d != "" {
			t.Errorf("KernelOwn(%s) (-want +got):\n%s", test.abi, d)
		}
	}
}
