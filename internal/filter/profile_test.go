// SPDX-License-Identifier: Apache-2.0

package filter

import (
	"flag"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"pgregory.net/rapid"

	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
	"github.com/whittle-sec/whittle/internal/workload"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s differs (-want +got); if it should, run with -update:\n%s", path, diff)
	}
}

func named(t testing.TB, abi syscalls.ABI, names ...string) (s syscalls.Set) {
	t.Helper()
	for _, name := range names {
		nr, ok := syscalls.Number(abi, name)
		if !ok {
			t.Fatalf("no call %s in %s", name, abi)
		}
		s.Add(nr)
	}
	return s
}

const anyBit = uint64(math.MaxUint64)

// small is a policy with two ABIs and argument rules.
func small(t testing.TB) policy.Policy {
	t.Helper()
	native := &policy.Calls{
		Phases: map[policy.Phase]syscalls.Set{
			policy.Boot: named(t, syscalls.X86_64, "openat", "read", "mmap", "socket", "bind", "listen", "clone"),
			policy.Run:  named(t, syscalls.X86_64, "read", "write", "epoll_wait", "accept4", "close"),
		},
		Floor: named(t, syscalls.X86_64, "execve", "prctl"),
		Args: map[uint32][]policy.ArgRule{
			41: {{Index: 0, Mask: anyBit, Value: 2}, {Index: 0, Mask: anyBit, Value: 1}, {Index: 1, Mask: 0xf, Value: 1}},
			56: {{Index: 0, Mask: 0x7e020000, Value: 0}},
		},
		Denied: map[uint32]policy.DeniedCall{435: {Errno: policy.ENOSYS, Count: 3}},
	}
	compat := &policy.Calls{Phases: map[policy.Phase]syscalls.Set{
		policy.Boot: named(t, syscalls.I386, "execve", "write", "set_thread_area"),
	}}
	return policy.Policy{ABIs: map[syscalls.ABI]*policy.Calls{syscalls.X86_64: native, syscalls.I386: compat}}
}

func exported(t testing.TB, p policy.Policy) *specs.LinuxSeccomp {
	t.Helper()
	r, err := FromPolicy(p, policy.Selection{})
	if err != nil {
		t.Fatal(err)
	}
	out, err := OCI(r)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestExports(t *testing.T) {
	p := exported(t, small(t))
	text, err := MarshalOCI(p)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "small.oci.json", text)
	if text, err = Operator("nginx-1a2b", p); err != nil {
		t.Fatal(err)
	}
	golden(t, "small.spo.yaml", text)
	r, _ := FromPolicy(small(t), policy.Selection{})
	if text, err = Systemd(r, syscalls.X86_64); err != nil {
		t.Fatal(err)
	}
	golden(t, "small.systemd.conf", text)
	if _, err := Operator("Bad Name", p); err == nil {
		t.Error("a SeccompProfile with a name that Kubernetes refuses was made")
	}
	if _, err := OCI(&Rules{}); err == nil {
		t.Error("a profile that refuses everything was made")
	}
}

// A name is allowed on every architecture that the profile lists: that is the format's weakness, and it is reported.
func TestWidened(t *testing.T) {
	r, err := FromPolicy(small(t), policy.Selection{})
	if err != nil {
		t.Fatal(err)
	}
	got := Widened(r)
	for _, want := range []struct {
		abi  syscalls.ABI
		name string
		is   bool
	}{
		{syscalls.I386, "openat", true}, {syscalls.X86_64, "set_thread_area", true},
		{syscalls.I386, "write", false}, {syscalls.X86_64, "ptrace", false},
	} {
		nr, _ := syscalls.Number(want.abi, want.name)
		if is := slices.Contains(got, syscalls.Call{ABI: want.abi, Nr: nr}); is != want.is {
			t.Errorf("%s %s widened: got %v, want %v", want.abi, want.name, is, want.is)
		}
	}
}

// What is exported and imported again decides alike, but for what the format cannot say (see OCI).
func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, sel := genPolicy(t)
		for _, abi := range syscalls.ABIs {
			if abi != syscalls.X86_64 {
				delete(p.ABIs, abi) // one list for all architectures: see TestWidened
			}
		}
		c := p.ABIs[syscalls.X86_64]
		if c == nil {
			return
		}
		for nr, rules := range c.Args {
			// Combinations of several arguments cannot be told from alternatives again.
			if rules = slices.DeleteFunc(rules, func(r policy.ArgRule) bool { return r.Index != rules[0].Index }); len(rules) > 0 {
				c.Args[nr] = rules
			}
		}
		r, _ := compile(t, p, sel)
		profile, err := OCI(r)
		if err != nil {
			t.Fatalf("export: %v", err)
		}
		text, err := MarshalOCI(profile)
		if err != nil {
			t.Fatalf("marshal: %v", err)
		}
		back, err := Import(text, workload.Workload{}, syscalls.X86_64)
		if err != nil {
			t.Fatalf("import: %v", err)
		}
		for nr := range syscalls.Known(syscalls.X86_64).All() {
			call := syscalls.Call{ABI: syscalls.X86_64, Nr: nr}
			for _, args := range around(c.Args[nr]) {
				was, is := want(p, sel, call, args), want(back, policy.Selection{}, call, args)
				if len(r.Tables[call.ABI].Checks[nr].Rules) > 0 {
					// The format has one errno for arguments that do not match.
					was, is = max(was, Errno(maxErrno)), max(is, Errno(maxErrno))
				}
				if was != is {
					t.Fatalf("%s args %#x: was %s, is %s", call, args, was, is)
				}
			}
		}
		again, _ := FromPolicy(back, policy.Selection{})
		second, err := OCI(again)
		if err != nil {
			t.Fatalf("export again: %v", err)
		}
		if Fingerprint(profile) != Fingerprint(second) {
			t.Fatalf("exported twice, with two fingerprints")
		}
	})
}

func TestFingerprint(t *testing.T) {
	p := exported(t, small(t))
	shuffled := &specs.LinuxSeccomp{
		DefaultAction: p.DefaultAction, DefaultErrnoRet: p.DefaultErrnoRet, ListenerPath: "/run/x",
		Architectures: append(slices.Clone(p.Architectures[1:]), p.Architectures[0], p.Architectures[0]),
	}
	for _, entry := range p.Syscalls { // one entry a name, as Podman writes it
		for _, name := range entry.Names {
			single := entry
			single.Names = []string{name}
			shuffled.Syscalls = append(shuffled.Syscalls, single)
		}
	}
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(shuffled.Syscalls), func(i, j int) {
		shuffled.Syscalls[i], shuffled.Syscalls[j] = shuffled.Syscalls[j], shuffled.Syscalls[i]
	})
	if got, want := Fingerprint(shuffled), Fingerprint(p); got != want {
		t.Errorf("regrouped: got %s, want %s", got, want)
	}
	seen := map[string]string{Fingerprint(p): "unchanged"}
	for name, change := range map[string]func(*specs.LinuxSeccomp){
		"a call more":      func(p *specs.LinuxSeccomp) { p.Syscalls[0].Names = append(p.Syscalls[0].Names, "ptrace") },
		"a call less":      func(p *specs.LinuxSeccomp) { p.Syscalls[0].Names = p.Syscalls[0].Names[1:] },
		"another default":  func(p *specs.LinuxSeccomp) { p.DefaultAction = specs.ActKillProcess },
		"default allow":    func(p *specs.LinuxSeccomp) { p.DefaultAction = specs.ActAllow },
		"an architecture":  func(p *specs.LinuxSeccomp) { p.Architectures = p.Architectures[:1] },
		"another errno":    func(p *specs.LinuxSeccomp) { p.DefaultErrnoRet = nil },
		"another value":    func(p *specs.LinuxSeccomp) { p.Syscalls[len(p.Syscalls)-1].Args[0].Value++ },
		"args dropped":     func(p *specs.LinuxSeccomp) { p.Syscalls[len(p.Syscalls)-1].Args = nil },
		"held not allowed": func(p *specs.LinuxSeccomp) { p.Syscalls[0].Action = specs.ActNotify },
	} {
		q := exported(t, small(t))
		change(q)
		sum := Fingerprint(q)
		if other, ok := seen[sum]; ok {
			t.Errorf("%q and %q have the same fingerprint", name, other)
		}
		seen[sum] = name
	}
}

func TestAllowed(t *testing.T) {
	errno := uint(1)
	args := []specs.LinuxSeccompArg{{Index: 0, Value: 1, Op: specs.OpEqualTo}}
	entry := func(a specs.LinuxSeccompAction, args []specs.LinuxSeccompArg, names ...string) specs.LinuxSyscall {
		return specs.LinuxSyscall{Names: names, Action: a, Args: args}
	}
	known := syscalls.Known(syscalls.X86_64)
	x := func(names ...string) syscalls.Set { return named(t, syscalls.X86_64, names...) }
	for _, test := range []struct {
		name             string
		profile          specs.LinuxSeccomp
		allowed, checked syscalls.Set
	}{
		{"nothing", specs.LinuxSeccomp{DefaultAction: specs.ActErrno}, x(), x()},
		{"the zero profile", specs.LinuxSeccomp{}, x(), x()},
		{"everything", specs.LinuxSeccomp{DefaultAction: specs.ActAllow}, known, x()},
		{
			"a deny-list",
			specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{
				entry(specs.ActErrno, nil, "ptrace"), entry(specs.ActErrno, args, "clone"), entry(specs.ActNotify, nil, "mount"),
			}},
			known.Minus(x("ptrace", "clone", "mount")), x("clone", "mount"),
		},
		{
			"an allow-list",
			specs.LinuxSeccomp{DefaultAction: specs.ActErrno, DefaultErrnoRet: &errno, Syscalls: []specs.LinuxSyscall{
				entry(specs.ActAllow, nil, "read", "no_such_call"), entry(specs.ActLog, nil, "write"),
				entry(specs.ActAllow, args, "socket"), entry(specs.ActAllow, args, "read"),
				entry(specs.ActErrno, nil, "socket"), // repeats the default
				entry(specs.ActTrap, nil, "kill"), entry(specs.ActAllow, nil, "kill"),
			}},
			x("read", "write"), x("socket"),
		},
	} {
		allowed, checked := Allowed(&test.profile, syscalls.X86_64)
		if got := allowed[syscalls.X86_64]; got != test.allowed {
			t.Errorf("%s: allowed %v, want %v", test.name, got.Names(syscalls.X86_64), test.allowed.Names(syscalls.X86_64))
		}
		if got := checked[syscalls.X86_64]; got != test.checked {
			t.Errorf("%s: checked %v, want %v", test.name, got.Names(syscalls.X86_64), test.checked.Names(syscalls.X86_64))
		}
	}
}

func TestDefaultProfile(t *testing.T) {
	p, err := DefaultProfile(syscalls.X86_64)
	if err != nil {
		t.Fatal(err)
	}
	allowed, checked := Allowed(p, syscalls.X86_64)
	native := allowed[syscalls.X86_64].Union(checked[syscalls.X86_64])
	t.Logf("x86-64: %d calls, %v of them with conditions; i386 %d, x32 %d", native.Len(),
		checked[syscalls.X86_64].Names(syscalls.X86_64), allowed[syscalls.I386].Len(), allowed[syscalls.X32].Len())
	if missing := named(t, syscalls.X86_64, "read", "execve", "socket", "clone", "chroot").Minus(native); !missing.Empty() {
		t.Errorf("refused: %v", missing.Names(syscalls.X86_64))
	}
	refused := named(t, syscalls.X86_64, "mount", "bpf", "keyctl", "unshare", "userfaultfd", "io_uring_setup", "setns", "clone3")
	if through := refused.Intersect(native); !through.Empty() {
		t.Errorf("allowed: %v", through.Names(syscalls.X86_64))
	}
	// A policy of what the default allows is the default: nothing added, nothing removed.
	a, err := NewAudit(p, syscalls.X86_64)
	if err != nil {
		t.Fatal(err)
	}
	if a.Allowed != a.DefaultAllowed || a.Allowed != native.Len() || len(a.Added)+len(a.Removed) > 0 {
		t.Errorf("the default against itself: %+v", a)
	}
	if want := []string{"socket"}; !slices.Equal(a.Aliased, want) {
		t.Errorf("evaded by the upper half of an argument: got %v, want %v", a.Aliased, want)
	}
	if a, err = NewAudit(exported(t, small(t)), syscalls.X86_64); err != nil {
		t.Fatal(err)
	}
	if a.Allowed >= a.DefaultAllowed || a.Checked != 2 || len(a.Aliased) > 0 || len(a.Removed) == 0 || !slices.Contains(a.Removed, "ptrace") {
		t.Errorf("the small policy: %+v", a)
	}
}

// What an open call asks about with other arguments, it asks about through an engine's profile too, where these can be listed.
func TestOCIHoldsOtherArguments(t *testing.T) {
	rule := func(mask uint64, values ...uint64) (rules []policy.ArgRule) {
		for _, v := range values {
			rules = append(rules, policy.ArgRule{Index: 2, Mask: mask, Value: v})
		}
		return rules
	}
	tests := []struct {
		name  string
		check Check
		held  []uint64 // values of the argument under the mask
	}{
		{"few bits", Check{Rules: rule(6, 0, 2, 4), Else: Notify}, []uint64{6}},
		{"all of its values", Check{Rules: rule(6, 0, 2, 4, 6), Else: Notify}, nil},
		{"many bits", Check{Rules: rule(anyBit, 1), Else: Notify}, nil},
		{"two masks", Check{Rules: append(rule(6, 0), rule(1, 0)...), Else: Notify}, nil},
		{"refused with others", Check{Rules: rule(6, 0, 2, 4), Else: Errno(uint16(policy.EPERM))}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			table := &Table{Checks: map[uint32]Check{9: tt.check}, Beyond: Errno(enosys)}
			for nr := range table.Actions {
				table.Actions[nr] = Errno(enosys)
			}
			table.Actions[9] = Allow // mmap
			profile, err := OCI(&Rules{Tables: map[syscalls.ABI]*Table{syscalls.X86_64: table}, Foreign: Errno(enosys)})
			if err != nil {
				t.Fatal(err)
			}
			var held []uint64
			allowed := 0
			for _, entry := range profile.Syscalls {
				switch {
				case !slices.Equal(entry.Names, []string{"mmap"}):
				case entry.Action == specs.ActNotify:
					held = append(held, entry.Args[0].ValueTwo)
				case entry.Action == specs.ActAllow:
					allowed++
				}
			}
			if diff := cmp.Diff(tt.held, held); diff != "" || allowed != len(tt.check.Rules) {
				t.Errorf("%d entries allow it, want %d; what is held differs\n%s", allowed, len(tt.check.Rules), diff)
			}
		})
	}
}
