// SPDX-License-Identifier: Apache-2.0

package filter

import (
	"math"
	"slices"
	"testing"

	"golang.org/x/net/bpf"
	"pgregory.net/rapid"

	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

func auditArch(t testing.TB, abi syscalls.ABI) uint32 {
	t.Helper()
	arch, ok := syscalls.AuditArch(abi)
	if !ok {
		t.Fatalf("no architecture number for %s", abi)
	}
	return arch
}

// dataOf is what a program sees of a call.
func dataOf(t testing.TB, call syscalls.Call, args [6]uint64) Data {
	d := Data{Nr: call.Nr, Arch: auditArch(t, call.ABI), IP: 0x7fff12345678, Args: args}
	if call.ABI == syscalls.X32 {
		d.Nr |= syscalls.X32Flag
	}
	return d
}

// want is policy.Decide's answer as a program returns it.
func want(p policy.Policy, sel policy.Selection, call syscalls.Call, args [6]uint64) Action {
	decision := policy.Decide(p, sel, call, args)
	if decision.Action == policy.Allow {
		return Allow
	}
	return Errno(uint16(decision.Errno))
}

type fataler interface{ Fatalf(string, ...any) }

func compile(t fataler, p policy.Policy, sel policy.Selection) (*Rules, []bpf.RawInstruction) {
	r, err := FromPolicy(p, sel)
	if err != nil {
		t.Fatalf("rules: %v", err)
	}
	prog, err := Compile(r)
	if err != nil {
		t.Fatalf("compile: %v", err)
	}
	return r, prog
}

// equal fails unless the program, the rules and policy.Decide agree on the call.
func equal(t fataler, p policy.Policy, sel policy.Selection, r *Rules, prog []bpf.RawInstruction,
	call syscalls.Call, d Data,
) {
	w := want(p, sel, call, d.Args)
	got, err := Run(prog, &d)
	if err != nil {
		t.Fatalf("%s %s (%d) args %#x: %v", call.ABI, call, call.Nr, d.Args, err)
	}
	if got != w {
		t.Fatalf("%s %s (%d) args %#x: program says %s, policy.Decide %s", call.ABI, call, call.Nr, d.Args, got, w)
	}
	if rules := r.Decide(d); rules != w {
		t.Fatalf("%s %s (%d) args %#x: rules say %s, policy.Decide %s", call.ABI, call, call.Nr, d.Args, rules, w)
	}
}

var edges = []uint64{0, 1, 2, 0x7fffffff, 0x80000000, 0xffffffff, 1 << 32, 1<<32 + 1, 1 << 63, math.MaxUint64}

func genSet(t *rapid.T, label string) (s syscalls.Set) {
	words := rapid.SliceOfN(rapid.Uint64(), 2*len(s), 2*len(s)).Draw(t, label)
	for i := range s {
		s[i] = words[2*i] & words[2*i+1]
	}
	return s
}

func genArgs(t *rapid.T) map[uint32][]policy.ArgRule {
	value := rapid.OneOf(rapid.SampledFrom(edges), rapid.Uint64())
	rule := rapid.Custom(func(t *rapid.T) policy.ArgRule {
		r := policy.ArgRule{
			Index: uint8(rapid.IntRange(0, 6).Draw(t, "index")), // 6 does not exist
			Mask:  rapid.OneOf(rapid.Just(uint64(math.MaxUint64)), value).Draw(t, "mask"),
			Value: value.Draw(t, "value"),
		}
		if rapid.IntRange(0, 9).Draw(t, "satisfiable") > 0 {
			r.Index %= 6
			r.Value &= r.Mask
		}
		return r
	})
	return rapid.MapOfN(rapid.Uint32Range(0, 460), rapid.SliceOfN(rule, 0, 6), 0, 30).Draw(t, "args")
}

func genPolicy(t *rapid.T) (policy.Policy, policy.Selection) {
	p := policy.Policy{ABIs: make(map[syscalls.ABI]*policy.Calls)}
	abis := rapid.SliceOfDistinct(rapid.SampledFrom(syscalls.ABIs[:]), rapid.ID[syscalls.ABI]).Draw(t, "abis")
	for _, abi := range abis {
		p.ABIs[abi] = &policy.Calls{
			Phases: map[policy.Phase]syscalls.Set{policy.Boot: genSet(t, "boot"), policy.Run: genSet(t, "run")},
			Floor:  genSet(t, "floor"),
			Exec:   genSet(t, "exec"),
			Args:   genArgs(t),
			Denied: map[uint32]policy.DeniedCall{
				rapid.Uint32Range(0, 460).Draw(t, "denied"): {Errno: policy.ENOSYS},
			},
		}
	}
	sel := policy.Selection{Exec: rapid.Bool().Draw(t, "exec")}
	if rapid.Bool().Draw(t, "run only") {
		sel.Phases = []policy.Phase{policy.Run}
	}
	return p, sel
}

// around are argument vectors at the edges of the rules: every rule met, and each argument just missed.
func around(rules []policy.ArgRule) (vectors [][6]uint64) {
	var met [6]uint64
	for _, r := range rules {
		if r.Index < 6 {
			met[r.Index] = r.Value
		}
	}
	vectors = append(vectors, met, [6]uint64{})
	for _, r := range rules {
		if r.Index >= 6 {
			continue
		}
		for _, v := range []uint64{
			r.Value, r.Value | ^r.Mask, r.Value ^ 1, r.Value ^ 1<<31, r.Value ^ 1<<32, r.Value ^ 1<<63,
			r.Value + 1, r.Value - 1, uint64(uint32(r.Value)), r.Value &^ 0xffffffff,
		} {
			vector := met
			vector[r.Index] = v
			vectors = append(vectors, vector)
		}
	}
	return vectors
}

// Invariant 1, over the whole number space of every ABI.
func TestProgramDecidesAsPolicy(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, sel := genPolicy(t)
		r, prog := compile(t, p, sel)
		numbers := []uint32{1<<30 - 1, 1<<31 - 1, 1 << 31, math.MaxUint32}
		for nr := range uint32(1100) {
			numbers = append(numbers, nr, nr|syscalls.X32Flag)
		}
		numbers = append(numbers, rapid.SliceOfN(rapid.Uint32(), 50, 50).Draw(t, "numbers")...)
		for _, abi := range []syscalls.ABI{syscalls.X86_64, syscalls.I386, syscalls.ARM64} {
			arch, _ := syscalls.AuditArch(abi)
			for _, nr := range numbers {
				call := syscalls.Call{ABI: abi, Nr: nr}
				if abi == syscalls.X86_64 && nr&syscalls.X32Flag != 0 {
					call = syscalls.Call{ABI: syscalls.X32, Nr: nr &^ syscalls.X32Flag}
				}
				vectors := [][6]uint64{{}}
				if c := p.ABIs[call.ABI]; c != nil && len(c.Args[call.Nr]) > 0 {
					vectors = around(c.Args[call.Nr])
				}
				for _, args := range vectors {
					equal(t, p, sel, r, prog, call, Data{Nr: nr, Arch: arch, Args: args})
				}
			}
		}
		foreign := Data{Arch: rapid.Uint32().Draw(t, "arch"), Nr: 1}
		if _, _, known := foreign.call(); known {
			return
		}
		if got, err := Run(prog, &foreign); err != nil || got != Errno(enosys) {
			t.Fatalf("architecture %#x: got %s, %v, want errno 38", foreign.Arch, got, err)
		}
	})
}

// The kernel answers an allowed call from its bitmap only if the program's path reads the number and the architecture
// alone (seccomp_is_const_allow in kernel/seccomp.c): so every path to a call without argument rules must.
func TestPlainCallsReadNoArguments(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, sel := genPolicy(t)
		r, prog := compile(t, p, sel)
		for abi, table := range r.Tables {
			arch, _ := syscalls.AuditArch(abi)
			for nr := range uint32(1100) {
				d := Data{Nr: nr, Arch: arch}
				if abi == syscalls.X32 {
					d.Nr |= syscalls.X32Flag
				}
				check, checked := table.Checks[nr]
				want := r.Decide(d) == Allow && (!checked || always(check))
				if got := ConstAllow(prog, d.Arch, d.Nr); got != want {
					t.Fatalf("%s %d: answered from the bitmap: %v, want %v", abi, nr, got, want)
				}
				if _, trace, _ := RunTrace(prog, &d); trace.BeyondArch && !checked {
					t.Fatalf("%s %d: has no argument rules, but its path reads an argument", abi, nr)
				}
			}
		}
	})
}

// always reports whether any arguments match, so that the compiler leaves the check out.
func always(c Check) bool {
	for _, r := range c.Rules {
		same := func(s policy.ArgRule) bool { return s.Index == r.Index && s.Mask == 0 && s.Value == 0 }
		if !slices.ContainsFunc(c.Rules, same) {
			return false
		}
	}
	return true
}

func TestCompileRefusesWhatTheKernelWould(t *testing.T) {
	c := &policy.Calls{Floor: syscalls.SetOf(1), Args: map[uint32][]policy.ArgRule{}}
	for v := range uint64(3000) {
		c.Args[1] = append(c.Args[1], policy.ArgRule{Index: 0, Mask: math.MaxUint64, Value: v << 32})
	}
	p := policy.Policy{ABIs: map[syscalls.ABI]*policy.Calls{syscalls.X86_64: c}}
	r, err := FromPolicy(p, policy.Selection{})
	if err != nil {
		t.Fatal(err)
	}
	if prog, err := Compile(r); err == nil {
		t.Fatalf("got a program of %d instructions, want an error", len(prog))
	}
	// Just long enough to need every kind of long jump, and right.
	c.Args[1] = c.Args[1][:700]
	r, prog := compile(t, p, policy.Selection{})
	for nr := range uint32(500) {
		for _, v := range []uint64{0, 1, 1 << 32, 699 << 32, 700 << 32} {
			call := syscalls.Call{ABI: syscalls.X86_64, Nr: nr}
			equal(t, p, policy.Selection{}, r, prog, call, dataOf(t, call, [6]uint64{v}))
		}
	}
}

func TestDeniedByDefault(t *testing.T) {
	prog, err := Compile(&Rules{})
	if err != nil {
		t.Fatal(err)
	}
	got, err := Run(prog, &Data{Arch: auditArch(t, syscalls.X86_64)})
	if err != nil || got != 0 {
		t.Fatalf("zero rules: got %s, %v, want to kill", got, err)
	}
}

func FuzzRun(f *testing.F) {
	f.Add([]byte{0x20, 0, 0, 0, 4, 0, 0, 0, 0x06, 0, 0, 0, 0, 0, 0xff, 0x7f}, uint32(1), uint64(2))
	f.Fuzz(func(t *testing.T, text []byte, nr uint32, arg uint64) {
		var prog []bpf.RawInstruction
		for ; len(text) >= 8 && len(prog) < MaxInstructions; text = text[8:] {
			prog = append(prog, bpf.RawInstruction{
				Op: uint16(text[0]), Jt: text[2], Jf: text[3],
				K: uint32(text[4]) | uint32(text[5])<<8 | uint32(text[6])<<16 | uint32(text[7])<<24,
			})
		}
		d := &Data{Nr: nr, Arch: 0xc000003e, Args: [6]uint64{arg}}
		action, trace, err := RunTrace(prog, d)
		if trace.Steps > len(prog) {
			t.Fatalf("%d steps of %d instructions", trace.Steps, len(prog))
		}
		if ConstAllow(prog, d.Arch, d.Nr) && (err != nil || action != Allow || trace.BeyondArch) {
			t.Fatalf("constant allow, but the run gives %s, %v, beyond the architecture: %v", action, err, trace.BeyondArch)
		}
	})
}

// FuzzCompile builds a policy of bytes and compares a program's decisions with policy.Decide's.
func FuzzCompile(f *testing.F) {
	f.Add([]byte{1, 2, 3, 255, 17}, uint32(59), uint64(1), uint64(3), uint64(1))
	f.Fuzz(func(t *testing.T, bitmap []byte, nr uint32, arg, mask, value uint64) {
		index := uint8(nr % 7)
		c := &policy.Calls{Args: map[uint32][]policy.ArgRule{
			nr % syscalls.MaxNr: {
				{Index: index, Mask: mask, Value: value}, {Index: index, Mask: ^mask, Value: arg},
			},
			(nr + 1) % syscalls.MaxNr: {
				{Index: 1, Mask: mask, Value: value}, {Index: 5, Mask: mask, Value: value & mask},
			},
		}}
		for i, b := range bitmap {
			if i < len(c.Floor)*8 {
				c.Floor[i/8] |= uint64(b) << (i % 8 * 8)
			}
		}
		p := policy.Policy{ABIs: map[syscalls.ABI]*policy.Calls{
			syscalls.X86_64: c, syscalls.ABIs[nr%3+1]: c,
		}}
		r, prog := compile(t, p, policy.Selection{})
		for _, abi := range syscalls.ABIs {
			for _, n := range []uint32{nr % syscalls.MaxNr, (nr + 1) % syscalls.MaxNr, nr &^ syscalls.X32Flag} {
				call := syscalls.Call{ABI: abi, Nr: n}
				for _, v := range []uint64{arg, value, value & mask, value | ^mask, 0} {
					equal(t, p, policy.Selection{}, r, prog, call, dataOf(t, call, [6]uint64{v, v, v, v, v, v}))
				}
			}
		}
	})
}
