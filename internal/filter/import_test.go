// SPDX-License-Identifier: Apache-2.0

package filter

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	moby "github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"pgregory.net/rapid"

	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
	"github.com/whittle-sec/whittle/internal/workload"
)

// Docker's own profile is the largest one in use, with every feature of the format.
func TestImportDockerDefault(t *testing.T) {
	text, err := json.Marshal(moby.DefaultProfile())
	if err != nil {
		t.Fatal(err)
	}
	w := workload.Workload{Image: "x"}
	p, err := Import(text, w, syscalls.X86_64)
	if err != nil {
		t.Fatal(err)
	}
	if p.Complete || len(p.Partial) == 0 {
		t.Errorf("complete %v, partial %q: want a partial policy", p.Complete, p.Partial)
	}
	standard, err := DefaultProfile(syscalls.X86_64)
	if err != nil {
		t.Fatal(err)
	}
	allowed, checked := Allowed(standard, syscalls.X86_64)
	for _, abi := range []syscalls.ABI{syscalls.X86_64, syscalls.I386, syscalls.X32} {
		want := allowed[abi].Union(checked[abi]).Union(syscalls.KernelOwn(abi))
		if got := policy.AllowedSet(p, policy.Selection{}, abi); got != want {
			t.Errorf("%s: got %v more and %v less than the profile allows", abi, got.Minus(want).Names(abi), want.Minus(got).Names(abi))
		}
	}
	socket := syscalls.Call{ABI: syscalls.X86_64, Nr: 41}
	for family, want := range map[uint64]Action{
		0: Allow, 2: Allow, 37: Allow, 38: Errno(eperm), 39: Allow, 40: Errno(eperm), 41: Allow, math.MaxUint64: Allow,
	} {
		if got := wantOf(p, socket, family); got != want {
			t.Errorf("socket(%d): got %s, want %s", family, got, want)
		}
	}
	clone := syscalls.Call{ABI: syscalls.X86_64, Nr: 56}
	for flags, want := range map[uint64]Action{0x11: Allow, 0x10000000: Errno(eperm), 0x20011: Errno(eperm)} {
		if got := wantOf(p, clone, flags); got != want {
			t.Errorf("clone(%#x): got %s, want %s", flags, got, want)
		}
	}
	if got := wantOf(p, syscalls.Call{ABI: syscalls.X86_64, Nr: 435}, 0); got != Errno(enosys) {
		t.Errorf("clone3: got %s, want errno 38", got)
	}
	if e := p.ABIs[syscalls.X86_64].Evidence[0]; e.Source != "granted" || e.Reason != "imported" {
		t.Errorf("evidence for read: %+v", e)
	}
	// The conditions for order become many masks, and the program must take them.
	compile(t, p, policy.Selection{})
}

func wantOf(p policy.Policy, call syscalls.Call, first uint64) Action {
	return want(p, policy.Selection{}, call, [6]uint64{first})
}

func TestImportSeccompProfile(t *testing.T) {
	text := `apiVersion: security-profiles-operator.x-k8s.io/v1beta1
kind: SeccompProfile
metadata:
  name: web
  namespace: prod
spec:
  defaultAction: SCMP_ACT_ERRNO
  architectures: [SCMP_ARCH_X86_64]
  syscalls:
  - action: SCMP_ACT_ALLOW
    names: [read, execve, arm_fadvise64_64]
`
	p, err := Import([]byte(text), workload.Workload{}, syscalls.X86_64)
	if err != nil {
		t.Fatal(err)
	}
	got := p.ABIs[syscalls.X86_64].Phases[policy.Run]
	if want := named(t, syscalls.X86_64, "read", "execve"); got != want {
		t.Errorf("got %v, want %v", got.Names(syscalls.X86_64), want.Names(syscalls.X86_64))
	}
}

func TestImportErrors(t *testing.T) {
	const allow = `"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW"}]`
	entry := func(s string) string { return `{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[` + s + `]}` }
	for _, test := range []struct {
		name, text, where, what, hint string
	}{
		{"empty", " \n", "", "empty", ""},
		{"null", "null", "", "", ""},
		{"a list", "[1]", "line 1", "got a JSON array", ""},
		{"cut off", "{\n\"defaultAction\":\n", "line 3", "not JSON", ""},
		{"two documents", "{" + allow + "}\n{}", "line 2", "invalid character", ""},
		{"no default", `{"syscalls":[]}`, "defaultAction", "unknown action", "SCMP_ACT_ERRNO"},
		{"unknown default", `{"defaultAction":"ALLOW"}`, "defaultAction", `"ALLOW"`, ""},
		{"allows by default", `{"defaultAction":"SCMP_ACT_ALLOW"}`, "defaultAction", "lets through", "default"},
		{"logs by default", `{"defaultAction":"SCMP_ACT_LOG"}`, "defaultAction", "lets through", ""},
		{"holds by default", `{"defaultAction":"SCMP_ACT_NOTIFY"}`, "defaultAction", "lets through", ""},
		{"errno 0", `{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":0}`, "defaultErrnoRet", "no errno 0", "EPERM"},
		{"refuses everything", `{"defaultAction":"SCMP_ACT_ERRNO"}`, "syscalls", "allows nothing", "execve"},
		{"refuses everything else too", entry(`{"names":["read"],"action":"SCMP_ACT_KILL"}`), "syscalls", "allows nothing", ""},
		{"allows only what is always allowed", entry(`{"names":["exit_group"],"action":"SCMP_ACT_ALLOW"}`), "syscalls", "allows nothing", ""},
		{"unknown call", entry(`{"names":["read","raed"],"action":"SCMP_ACT_ALLOW"}`), "syscalls[0].names[1]", `"raed"`, "correct"},
		{"kernel's name", entry(`{"names":["sys_read"],"action":"SCMP_ACT_ALLOW"}`), "syscalls[0].names[0]", "sys_read", "called read"},
		{"forged name", entry(`{"names":["re\u001b[31m"],"action":"SCMP_ACT_ALLOW"}`), "syscalls[0].names[0]", `"re?[31m"`, ""},
		{"no names", entry(`{"action":"SCMP_ACT_ALLOW"}`), "syscalls[0]", "no names", ""},
		{"null entry", entry(`null`), "syscalls[0]", "null", ""},
		{"unknown action", entry(`{"names":["read"],"action":"allow"}`), "syscalls[0].action", `"allow"`, ""},
		{"misspelt key", entry("\n" + `{"names":["read"],"action":"SCMP_ACT_ALLOW","arg":[]}`), "", `"arg"`, "args"},
		{"number for name", entry("\n" + `{"names":[7],"action":"SCMP_ACT_ALLOW"}`), "line 2", "number", ""},
		{"argument 6", entry(`{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{"index":6,"op":"SCMP_CMP_EQ"}]}`), "syscalls[0].args[0].index", "no argument 6", ""},
		{"unknown operator", entry(`{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{"op":"=="}]}`), "syscalls[0].args[0].op", `"=="`, ""},
		{"two conditions on an argument", entry(`{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[
			{"index":1,"op":"SCMP_CMP_GT"},{"index":1,"value":9,"op":"SCMP_CMP_LT"}]}`), "read", "argument 1", ""},
		{"duplicated architecture", `{"architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86_64"],` + allow + `}`, "architectures[1]", "twice", "remove"},
		{"unknown architecture", `{"architectures":["amd64"],` + allow + `}`, "architectures[0]", `"amd64"`, "SCMP_ARCH_X86_64"},
		{"duplicated map", `{"archMap":[{"architecture":"SCMP_ARCH_ARM"},{"architecture":"SCMP_ARCH_ARM"}],` + allow + `}`, "archMap[1]", "twice", ""},
		{"both architectures", `{"architectures":["SCMP_ARCH_X86"],"archMap":[{}],` + allow + `}`, "archMap", "both", ""},
		{"addition", `{"baseProfileName":"b",` + allow + `}`, "baseProfileName", "addition", "merge"},
		{"another kind", `{"kind":"Pod","apiVersion":"v1","metadata":{},"spec":{}}`, "kind", "Pod", ""},
		{"odd YAML", "a: [", "", "not a profile", ""},
		{"aliases", "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c]\n" +
			"e: &e [*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e]\ng: [*f,*f,*f,*f,*f,*f]", "", "", ""},
		{"deep", strings.Repeat(`{"a":`, 20000), "", "", ""},
		{"ten million names", entry(`{"names":[` + strings.Repeat(`"a",`, 10_000_000) + `"a"],"action":"SCMP_ACT_ALLOW"}`), "", "limit is 8388608", ""},
		{"a million names", entry(`{"names":[` + strings.Repeat(`"a",`, 1_000_000) + `"a"],"action":"SCMP_ACT_ALLOW"}`), "syscalls[0]", "limit is 2000", ""},
		{"a million entries", entry(strings.Repeat(`{},`, 1_000_000) + `{}`), "", "limit is 50000", ""},
		{"many entries", entry(strings.Repeat(`{},`, 10_000) + `{}`), "syscalls", "limit is 4000", ""},
	} {
		_, err := Import([]byte(test.text), workload.Workload{}, syscalls.X86_64)
		var at *ProfileError
		if !errors.As(err, &at) {
			t.Errorf("%s: got %v, want a *ProfileError", test.name, err)
			continue
		}
		if at.Where != test.where && test.where != "" || !strings.Contains(at.What, test.what) || !strings.Contains(at.Help, test.hint) {
			t.Errorf("%s: got %q, hint %q; want %q at %q, hint %q", test.name, err, at.Help, test.what, test.where, test.hint)
		}
		if len(err.Error()) > 1000 {
			t.Errorf("%s: the message has %d bytes", test.name, len(err.Error()))
		}
	}
}

// A comparison said by masks decides as the comparison.
func TestArgRules(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		number := rapid.OneOf(rapid.SampledFrom(edges), rapid.Uint64())
		v, w, x := number.Draw(t, "v"), number.Draw(t, "w"), number.Draw(t, "x")
		for _, op := range operators {
			arg := specs.LinuxSeccompArg{Index: 3, Value: v, ValueTwo: w, Op: op}
			rules := argRules(arg)
			if len(rules) == 0 {
				t.Fatalf("%s %#x: no rules, so the argument is free", op, v)
			}
			for _, x := range []uint64{x, v, v - 1, v + 1, w} {
				args := [6]uint64{3: x}
				if got, want := (Check{Rules: rules}).matches(args), holds(arg, args); got != want {
					t.Fatalf("%#x %s %#x (%#x): got %v, want %v", x, op, v, w, got, want)
				}
			}
		}
	})
}

func FuzzImport(f *testing.F) {
	text, err := MarshalOCI(exported(f, small(f)))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte("kind: SeccompProfile\napiVersion: security-profiles-operator.x-k8s.io/v1beta1\nspec:\n  defaultAction: SCMP_ACT_KILL"))
	f.Add([]byte(`{"defaultAction":"SCMP_ACT_ERRNO","archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X32"]}],` +
		`"syscalls":[{"name":"read","action":"SCMP_ACT_ALLOW","args":[{"index":2,"op":"SCMP_CMP_NE","value":9}],"includes":{"minKernel":"4.8"}}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := Import(text, workload.Workload{}, syscalls.X86_64)
		if err != nil {
			var at *ProfileError
			if !errors.As(err, &at) || strings.ContainsFunc(err.Error()+at.Help, func(r rune) bool { return r < ' ' }) {
				t.Fatalf("got %q, want a printable *ProfileError", err)
			}
			return
		}
		// What was imported can be enforced, unless it is too large, and never allows more than the profile.
		profile, err := Parse(text, syscalls.X86_64)
		if err != nil {
			t.Fatal(err)
		}
		Fingerprint(profile)
		allowed, checked := Allowed(profile, syscalls.X86_64)
		for abi := range p.ABIs {
			through := policy.AllowedSet(p, policy.Selection{}, abi).Minus(syscalls.KernelOwn(abi))
			if !allowed[abi].Union(checked[abi]).Contains(through) {
				t.Fatalf("%s: the policy allows what the profile does not", abi)
			}
		}
		if r, err := FromPolicy(p, policy.Selection{}); err != nil {
			t.Fatal(err)
		} else if prog, err := Compile(r); err == nil && len(prog) > MaxInstructions {
			t.Fatal(fmt.Errorf("%d instructions", len(prog)))
		}
	})
}
