// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"testing"

	"github.com/whittle-sec/whittle/internal/syscalls"
)

func TestDecide(t *testing.T) {
	p := example(t)
	allow := Decision{Action: Allow}
	eperm, enosys := Decision{Refuse, EPERM}, Decision{Refuse, ENOSYS}
	run := Selection{Phases: []Phase{Run}}
	for _, tc := range []struct {
		name string
		sel  Selection
		call syscalls.Call
		args [6]uint64
		want Decision
	}{
		{"zero selection is every phase", Selection{}, call(t, "setuid"), [6]uint64{}, allow},
		{"and the stop phase", Selection{}, call(t, "unlink"), [6]uint64{}, allow},
		{"but not the exec lane", Selection{}, call(t, "ioctl"), [6]uint64{}, eperm},
		{"exec lane when asked", Selection{Exec: true}, call(t, "ioctl"), [6]uint64{}, allow},
		{"one phase", run, call(t, "execve"), [6]uint64{}, allow},
		{"call of another phase", run, call(t, "setuid"), [6]uint64{}, eperm},
		{"no phase", Selection{Phases: []Phase{}}, call(t, "write"), [6]uint64{}, eperm},
		{"no phase, floor", Selection{Phases: []Phase{}}, call(t, "prctl"), [6]uint64{}, allow},
		{"kernel's own", Selection{Phases: []Phase{}}, call(t, "rt_sigreturn"), [6]uint64{}, allow},
		{"never seen", Selection{}, call(t, "mount"), [6]uint64{}, eperm},
		{"denied with EPERM while learned", Selection{}, call(t, "keyctl"), [6]uint64{}, eperm},
		{"denied with ENOSYS while learned", Selection{}, call(t, "io_uring_setup"), [6]uint64{}, enosys},
		{"falls back on ENOSYS", Selection{}, call(t, "clone3"), [6]uint64{}, enosys},
		{"no name, learned", Selection{}, syscalls.Call{ABI: x86, Nr: 600}, [6]uint64{}, allow},
		{"past the table", Selection{}, syscalls.Call{ABI: x86, Nr: 601}, [6]uint64{}, enosys},
		{"past every set", Selection{}, syscalls.Call{ABI: x86, Nr: 1 << 31}, [6]uint64{}, enosys},
		{"other ABI", Selection{}, syscalls.Call{ABI: syscalls.I386, Nr: nr(t, syscalls.I386, "getpid")}, [6]uint64{}, allow},
		{"same number, other ABI", Selection{}, syscalls.Call{ABI: x86, Nr: nr(t, syscalls.I386, "getpid")}, [6]uint64{}, eperm},
		{"ABI not in the policy", Selection{}, syscalls.Call{ABI: syscalls.X32, Nr: 0}, [6]uint64{}, enosys},
		{"and its kernel's own", Selection{}, syscalls.Call{ABI: syscalls.ARM64, Nr: nr(t, syscalls.ARM64, "exit")}, [6]uint64{}, enosys},
		{"no ABI", Selection{}, syscalls.Call{}, [6]uint64{}, enosys},
		{"arguments match", Selection{}, call(t, "socket"), [6]uint64{2, 9, 0}, allow},
		{"other value of the list", Selection{}, call(t, "socket"), [6]uint64{1, 9, 0}, allow},
		{"bits outside the mask", Selection{}, call(t, "socket"), [6]uint64{1<<40 | 1, 9, 0}, allow},
		{"value not in the list", Selection{}, call(t, "socket"), [6]uint64{17, 9, 0}, eperm},
		{"other index does not match", Selection{}, call(t, "socket"), [6]uint64{2, 9, 1}, eperm},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := Decide(p, tc.sel, tc.call, tc.args); got != tc.want {
				t.Errorf("Decide(%v, %v, %v) = %v, want %v", tc.sel, tc.call, tc.args, got, tc.want)
			}
		})
	}
	if (Decision{}).Action != Refuse {
		t.Error("the zero Decision allows")
	}
	if got := Decide(Policy{}, Selection{}, call(t, "exit"), [6]uint64{}); got != enosys {
		t.Errorf("the zero Policy: %v, want %v", got, enosys)
	}
}

// Over the whole number space: never errno 0, and AllowedSet says what Decide does.
func TestAllowedSet(t *testing.T) {
	p := example(t)
	contradiction := nr(t, x86, "mmap")
	p.ABIs[x86].Args[contradiction] = []ArgRule{{Index: 0, Mask: 1, Value: 2}}
	p.ABIs[x86].Args[nr(t, x86, "open")] = []ArgRule{{Index: 6, Mask: 0, Value: 0}}
	for _, sel := range []Selection{{}, {Exec: true}, {Phases: []Phase{Run, Stop}}, {Phases: []Phase{}}, {Phases: []Phase{99}}} {
		for _, abi := range syscalls.ABIs {
			set := AllowedSet(p, sel, abi)
			for nr := range uint32(syscalls.MaxNr + 2) {
				// {2, …} satisfies the rules of socket.
				d := Decide(p, sel, syscalls.Call{ABI: abi, Nr: nr}, [6]uint64{2})
				if (d.Action == Allow) != set.Has(nr) {
					t.Errorf("%v %v %s: Decide %v, AllowedSet %t", sel, abi, syscalls.Name(abi, nr), d, set.Has(nr))
				}
				if d.Action == Refuse && d.Errno != EPERM && d.Errno != ENOSYS || d.Action == Allow && d.Errno != 0 {
					t.Errorf("%v %s: %v", abi, syscalls.Name(abi, nr), d)
				}
			}
		}
	}
}

func TestFallbacks(t *testing.T) {
	for _, f := range fallbacks {
		found := false
		for _, abi := range syscalls.ABIs {
			_, ok := syscalls.Number(abi, f.name)
			found = found || ok
		}
		if !found || f.reason == "" {
			t.Errorf("%q is in no ABI, or has no reason", f.name)
		}
	}
	for _, name := range []string{"clone3", "faccessat2", "openat2", "close_range", "statx", "rseq", "epoll_pwait2"} {
		for _, abi := range syscalls.ABIs {
			if n, ok := syscalls.Number(abi, name); ok && !FallsBack(syscalls.Call{ABI: abi, Nr: n}) {
				t.Errorf("%s of %v is refused with EPERM", name, abi)
			}
		}
	}
	if FallsBack(call(t, "mount")) {
		t.Error("mount falls back on ENOSYS")
	}
}
