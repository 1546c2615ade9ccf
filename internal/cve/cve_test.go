// SPDX-License-Identifier: Apache-2.0

package cve

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/whittle-sec/whittle/internal/syscalls"
)

var (
	native = []syscalls.ABI{syscalls.X86_64}
	x86    = []syscalls.ABI{syscalls.X86_64, syscalls.I386}
)

func ids(cves []CVE) (ids []string) {
	for _, c := range cves {
		ids = append(ids, c.ID)
	}
	return ids
}

func find(t *testing.T, id string) CVE {
	t.Helper()
	for _, c := range All() {
		if c.ID == id {
			return c
		}
	}
	t.Fatalf("no %s", id)
	return CVE{}
}

// except allows every call but those named "call" or "ABI call", or "call(arg)" with that argument.
func except(blocked ...string) Allowed {
	return func(c syscalls.Call, arg string) bool {
		return !slices.Contains(blocked, c.String()) && !slices.Contains(blocked, c.ABI.String()+" "+c.String()) &&
			!slices.Contains(blocked, Alternative{c.String(), arg}.String())
	}
}

func TestAll(t *testing.T) {
	sources := map[string]int{}
	for _, c := range All() {
		for _, s := range c.Sources {
			sources[s]++
		}
		if len(c.Gates) == 0 {
			t.Errorf("%s has no gate", c.ID)
		}
	}
	// Six CVEs are in both papers' lists: 59 from the papers, 79 from kernelCTF.
	want := map[string]int{"confine": 29, "syspart": 36, "kernelctf": 79}
	if d := cmp.Diff(want, sources); d != "" {
		t.Errorf("CVEs by source (-want +got):\n%s", d)
	}
	if n := len(All()); n != 138 {
		t.Errorf("%d CVEs, want 138", n)
	}
}

func TestNeutralised(t *testing.T) {
	for _, test := range []struct {
		name, id string
		abis     []syscalls.ABI
		allowed  Allowed
		want     bool
	}{
		{"nothing blocked", "CVE-2009-3624", native, except(), false},
		{"only call blocked", "CVE-2009-3624", native, except("keyctl"), true},
		{"no ABI known", "CVE-2009-3624", nil, except("keyctl"), false},
		{"blocked in one ABI of two", "CVE-2009-3624", x86, except("x86_64 keyctl"), false},
		{"one alternative of two blocked", "CVE-2008-3527", native, except("execve"), false},
		{"both alternatives blocked", "CVE-2008-3527", native, except("execve", "execveat"), true},
		{"the equivalent that the list leaves out is open", "CVE-2010-4250", native, except("inotify_init1"), false},
		{"and blocked", "CVE-2010-4250", native, except("inotify_init1", "inotify_init"), true},
		{"clone implies clone3", "CVE-2019-11815", native, except("clone", "unshare"), false},
		{"fork implies vfork", "CVE-2014-4699", native, except("clone", "clone3", "fork", "ptrace"), false},
		{"waitid is not wait4", "CVE-2017-5123", native, except("waitid"), true},
		{"i386 multiplexer open", "CVE-2010-4072", x86, except("shmctl"), false},
		{"i386 multiplexer blocked", "CVE-2010-4072", x86, except("shmctl", "ipc"), true},
		{"argument blocked", "CVE-2025-21756", native, except("socket(AF_VSOCK)"), true},
		{"other argument blocked", "CVE-2025-21756", native, except("socket(AF_ALG)"), false},
		{"argument is in memory under socketcall", "CVE-2025-21756", x86, except("socket(AF_VSOCK)"), false},
		{"first gate of two", "CVE-2024-1086", native, except("unshare", "clone(CLONE_NEWUSER)", "clone3", "setns"), true},
		{"part of the first gate", "CVE-2024-1086", native, except("unshare", "clone(CLONE_NEWUSER)", "setns"), false},
		{"clone3's flags are in memory: it counts while it is allowed", "CVE-2024-1086", native,
			except("unshare", "clone", "setns"), false},
		{"second gate of two", "CVE-2024-1086", native, except("socket(AF_NETLINK)"), true},
		{"both gates, each in one ABI", "CVE-2024-1086", x86, except("x86_64 unshare", "x86_64 clone", "x86_64 clone3",
			"x86_64 setns", "i386 socket", "i386 socketcall"), false},
		{"conjunction in an alternative: mount is left", "CVE-2023-5345", native, except("fsopen"), false},
		{"conjunction in an alternative: half and mount", "CVE-2023-5345", native, except("fsopen", "mount"), true},
		{"conjunction in an alternative: other half and mount", "CVE-2023-5345", native, except("fsconfig", "mount"), true},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := find(t, test.id)
			if got := c.Neutralised(test.abis, test.allowed); got != test.want {
				t.Errorf("%s with gates %v: neutralised %v, want %v", c.ID, c.Gates, got, test.want)
			}
		})
	}
}

func TestNeutralisedSplitsAll(t *testing.T) {
	neutralised, exposed := Neutralised(native, except("keyctl", "bpf"))
	got := append(ids(neutralised), ids(exposed)...)
	want := ids(All())
	slices.Sort(got)
	slices.Sort(want)
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("the two parts against all (-want +got):\n%s", d)
	}
}

func TestReopened(t *testing.T) {
	keyctl, _ := syscalls.Number(syscalls.X86_64, "keyctl")
	addKey, _ := syscalls.Number(syscalls.X86_64, "add_key")
	i386keyctl, _ := syscalls.Number(syscalls.I386, "keyctl")
	for _, test := range []struct {
		name string
		call syscalls.Call
		want []string
	}{
		{"keyctl", syscalls.Call{ABI: syscalls.X86_64, Nr: keyctl}, []string{"CVE-2009-3624", "CVE-2014-9529", "CVE-2015-7550",
			"CVE-2016-0728", "CVE-2016-9604", "CVE-2017-12192", "CVE-2017-15274"}},
		{"add_key", syscalls.Call{ABI: syscalls.X86_64, Nr: addKey}, []string{"CVE-2016-0728", "CVE-2017-15274"}},
		{"an ABI that was closed", syscalls.Call{ABI: syscalls.I386, Nr: i386keyctl}, nil},
		{"already allowed", syscalls.Call{ABI: syscalls.X86_64, Nr: 0}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			allowed := except("keyctl", "add_key", "request_key")
			got := ids(Reopened(native, allowed, test.call))
			if test.name == "an ABI that was closed" {
				if !slices.Contains(got, "CVE-2009-3624") {
					t.Errorf("reopened %v, want CVE-2009-3624 among them", got)
				}
				return
			}
			if d := cmp.Diff(test.want, got); d != "" {
				t.Errorf("Reopened(%s) (-want +got):\n%s", test.call, d)
			}
		})
	}
}

// A stricter policy neutralises at least as much, and a CVE is exposed exactly if every gate is open.
func TestNeutralisedIsMonotonic(t *testing.T) {
	gated := slices.Collect(Gated(syscalls.X86_64).All())
	rapid.Check(t, func(t *rapid.T) {
		wide := syscalls.SetOf(rapid.SliceOf(rapid.SampledFrom(gated)).Draw(t, "wide")...)
		cut := syscalls.SetOf(rapid.SliceOf(rapid.SampledFrom(gated)).Draw(t, "cut")...)
		allow := func(s syscalls.Set) Allowed { return func(c syscalls.Call, _ string) bool { return s.Has(c.Nr) } }
		loose, _ := Neutralised(native, allow(wide))
		strict, exposed := Neutralised(native, allow(wide.Minus(cut)))
		for _, id := range ids(loose) {
			if !slices.Contains(ids(strict), id) {
				t.Fatalf("%s is neutralised by %v but not by less", id, wide.Names(syscalls.X86_64))
			}
		}
		for _, c := range exposed {
			for _, g := range c.Gates {
				if len(g.Open(native, allow(wide.Minus(cut)))) == 0 {
					t.Fatalf("%s is exposed although %v is blocked", c.ID, g)
				}
			}
		}
	})
}

func TestGated(t *testing.T) {
	gated := Gated(syscalls.X86_64)
	for _, test := range []struct {
		name string
		want bool
	}{
		{"keyctl", true}, {"execveat", true}, {"clone3", true}, {"inotify_init", true},
		{"read", false}, {"epoll_create1", false}, {"getpid", false}, {"wait4", false},
	} {
		nr, _ := syscalls.Number(syscalls.X86_64, test.name)
		if got := gated.Has(nr); got != test.want {
			t.Errorf("%s gated: %v, want %v", test.name, got, test.want)
		}
	}
}

func TestRegisterOverlaps(t *testing.T) {
	for _, test := range []struct {
		name       string
		r          Register
		mask, want uint64
		overlaps   bool
	}{
		{"equal", Register{0, wordMask, 16}, ^uint64(0), 16, true},
		{"other value", Register{0, wordMask, 16}, ^uint64(0), 1, false},
		{"default's clone mask asks for 0", Register{0, cloneNewUser, cloneNewUser}, 0x7e020000, 0, false},
		{"mask without the bit", Register{0, cloneNewUser, cloneNewUser}, 0x00020000, 0, true},
		{"one value of the flags with the bit", Register{0, cloneNewUser, cloneNewUser}, ^uint64(0), 0x10000011, true},
		{"rule that nothing matches", Register{0, wordMask, 16}, 0xf0, 0x1f, false},
	} {
		if got := test.r.Overlaps(test.mask, test.want); got != test.overlaps {
			t.Errorf("%s: %v.Overlaps(%#x, %#x) = %v", test.name, test.r, test.mask, test.want, got)
		}
	}
}

func TestParseErrors(t *testing.T) {
	for _, test := range []struct{ name, line, want string }{
		{"columns", "CVE-1\tread\tconfine", "3 columns"},
		{"id", "1\tread\tconfine\t-", "no CVE"},
		{"unknown call", "CVE-1\treadx\tconfine\t-", `no ABI has a call "readx"`},
		{"empty gate", "CVE-1\t\tconfine\t-", `no ABI has a call ""`},
		{"unknown argument", "CVE-1\tsocket(AF_FOO)\tconfine\t-", `has no argument "AF_FOO"`},
		{"argument of another call", "CVE-1\tread(AF_ALG)\tconfine\t-", `has no argument "AF_ALG"`},
		{"open bracket", "CVE-1\tsocket(AF_ALG\tconfine\t-", "brackets"},
		{"empty brackets", "CVE-1\tsocket()\tconfine\t-", "brackets"},
		{"twice", "CVE-1\tread\tconfine\t-\nCVE-1\tread\tconfine\t-", "CVE-1 twice"},
	} {
		if _, err := parse(test.line); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: parse(%q) = %v, want %q", test.name, test.line, err, test.want)
		}
	}
}
