// SPDX-License-Identifier: Apache-2.0

package filter

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/net/bpf"
	gvisor "gvisor.dev/gvisor/pkg/seccomp"

	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
	"github.com/whittle-sec/whittle/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// typical policies allow about a hundred calls, five of them with some arguments only. The refusal of those is ENOSYS,
// because libseccomp cannot give them another errno than the default.
func typical(random *rand.Rand) policy.Policy {
	c := &policy.Calls{Args: make(map[uint32][]policy.ArgRule), Denied: make(map[uint32]policy.DeniedCall)}
	for _, nr := range []uint32{16, 41, 56, 72, 157} { // ioctl socket clone fcntl prctl
		for range 1 + random.IntN(6) {
			rule := policy.ArgRule{Index: uint8(random.IntN(2)), Mask: math.MaxUint64, Value: edges[random.IntN(len(edges))]}
			if random.IntN(3) == 0 {
				rule.Mask = 0x7e020000ffff
				rule.Value &= rule.Mask
			}
			c.Args[nr] = append(c.Args[nr], rule)
		}
		c.Denied[nr] = policy.DeniedCall{Errno: policy.ENOSYS}
		c.Floor.Add(nr)
	}
	known := slices.Collect(syscalls.Known(syscalls.X86_64).All())
	for c.Floor.Len() < 101 {
		c.Floor.Add(known[random.IntN(len(known))])
	}
	return policy.Policy{ABIs: map[syscalls.ABI]*policy.Calls{syscalls.X86_64: c}}
}

// libseccomp compiles the same rules.
func libseccomp(t *testing.T, tool string, level int, t64 *Table) []bpf.RawInstruction {
	t.Helper()
	var in bytes.Buffer
	for nr, action := range t64.Actions {
		check, checked := t64.Checks[uint32(nr)]
		switch {
		case checked:
			for _, entry := range combinations(t, action, check) {
				fmt.Fprintf(&in, "%d %d %d", action, nr, len(entry))
				for _, rule := range entry {
					fmt.Fprintf(&in, " %d %d %d", rule.Index, rule.Mask, rule.Value)
				}
				fmt.Fprintln(&in)
			}
		case action != Errno(enosys): // the default
			fmt.Fprintf(&in, "%d %d 0\n", action, nr)
		}
	}
	var out, complaint bytes.Buffer
	cmd := exec.CommandContext(t.Context(), tool, strconv.Itoa(level))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = &in, &out, &complaint
	if err := cmd.Run(); err != nil {
		t.Fatalf("libseccomp: %v, %s", err, complaint.String())
	}
	var raw []struct {
		Op     uint16
		Jt, Jf uint8
		K      uint32
	}
	raw = slices.Grow(raw, out.Len()/8)[:out.Len()/8]
	if err := binary.Read(&out, binary.LittleEndian, raw); err != nil {
		t.Fatal(err)
	}
	prog := make([]bpf.RawInstruction, len(raw))
	for i, ins := range raw {
		prog[i] = bpf.RawInstruction(ins)
	}
	return prog
}

// combinations are alternatives of which each is an AND over arguments.
func combinations(t *testing.T, action Action, c Check) (out [][]policy.ArgRule) {
	t.Helper()
	list, err := entriesOf("call", action, [][]policy.ArgRule{c.Rules})
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range list {
		var rules []policy.ArgRule
		for _, a := range entry.Args {
			rule := policy.ArgRule{Index: uint8(a.Index), Mask: a.Value, Value: a.ValueTwo}
			if a.Op == specs.OpEqualTo {
				rule = policy.ArgRule{Index: uint8(a.Index), Mask: math.MaxUint64, Value: a.Value}
			}
			rules = append(rules, rule)
		}
		out = append(out, rules)
	}
	return out
}

// gvisorProgram compiles the same rules.
func gvisorProgram(t *testing.T, t64 *Table) []bpf.RawInstruction {
	t.Helper()
	byAction := make(map[Action]gvisor.SyscallRules)
	add := func(a Action, nr uint32, rule gvisor.SyscallRule) {
		if _, ok := byAction[a]; !ok {
			byAction[a] = gvisor.NewSyscallRules()
		}
		byAction[a].Add(uintptr(nr), rule)
	}
	for nr, action := range t64.Actions {
		check, checked := t64.Checks[uint32(nr)]
		if !checked {
			add(action, uint32(nr), gvisor.MatchAll{})
			continue
		}
		for _, entry := range combinations(t, action, check) {
			var rule gvisor.PerArg
			for i := range rule {
				rule[i] = gvisor.AnyValue{}
			}
			for _, r := range entry {
				rule[r.Index] = gvisor.EqualTo(r.Value)
				if r.Mask != math.MaxUint64 {
					rule[r.Index] = gvisor.MaskedEqual(uintptr(r.Mask), uintptr(r.Value))
				}
			}
			add(action, uint32(nr), rule)
		}
		add(check.Else, uint32(nr), gvisor.MatchAll{})
	}
	enosysAction := gvisor.ReturnError.Code(enosys)
	program := gvisor.Program{Options: gvisor.ProgramOptions{DefaultAction: enosysAction, BadArchAction: enosysAction}}
	for _, action := range slices.Backward(slices.Sorted(maps.Keys(byAction))) { // the first match wins: allow before errno
		as := gvisor.Allow
		if action != Allow {
			as = gvisor.ReturnError.Code(uint16(action & 0xffff))
		}
		program.RuleSets = append(program.RuleSets, gvisor.RuleSet{Rules: byAction[action], Action: as})
	}
	instructions, _, err := program.Build()
	if err != nil {
		t.Fatal(err)
	}
	prog := make([]bpf.RawInstruction, len(instructions))
	for i, ins := range instructions {
		prog[i] = bpf.RawInstruction{Op: ins.OpCode, Jt: ins.JumpIfTrue, Jf: ins.JumpIfFalse, K: ins.K}
	}
	return prog
}

// Three compilers, one decision: over the whole number space, with arguments at the edges of the rules.
func TestOracles(t *testing.T) {
	testenv.NeedLibseccomp(t)
	tool := filepath.Join(t.TempDir(), "oracle")
	if out, err := exec.Command("gcc", "-Wall", "-Werror", "-o", tool, "testdata/oracle.c", "-lseccomp").CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s", err, out)
	}
	random := rand.New(rand.NewPCG(1, 2))
	for round := range 3 {
		p := typical(random)
		r, ours := compile(t, p, policy.Selection{})
		t64 := r.Tables[syscalls.X86_64]
		programs := []struct {
			name string
			prog []bpf.RawInstruction
		}{
			{"whittle", ours},
			{"libseccomp linear", libseccomp(t, tool, 1, t64)},
			{"libseccomp tree", libseccomp(t, tool, 2, t64)},
			{"gvisor", gvisorProgram(t, t64)},
		}
		for _, program := range programs {
			var cost [3]costs
			for d := range space(random, p) {
				got, trace, err := RunTrace(program.prog, &d)
				if err != nil {
					t.Fatalf("%s: %v", program.name, err)
				}
				if want := r.Decide(d); got != want {
					t.Fatalf("round %d: %s says %s to architecture %#x number %#x arguments %#x, the rules say %s",
						round, program.name, got, d.Arch, d.Nr, d.Args[:2], want)
				}
				if d.Arch == 0xc000003e && d.Nr < uint32(syscalls.Last(syscalls.X86_64)) {
					cost[kind(t64, d.Nr)].add(trace.Steps)
				}
			}
			t.Logf("round %d: %-17s %4d instructions; steps allowed %s, refused %s, with arguments %s",
				round, program.name, len(program.prog), cost[0], cost[1], cost[2])
		}
	}
}

func kind(t *Table, nr uint32) int {
	if _, checked := t.Checks[nr]; checked {
		return 2
	}
	if t.Actions[nr] == Allow {
		return 0
	}
	return 1
}

type costs struct{ sum, count, most int }

func (c *costs) add(steps int) { c.sum, c.count, c.most = c.sum+steps, c.count+1, max(c.most, steps) }
func (c costs) String() string {
	return fmt.Sprintf("%.1f (at most %d)", float64(c.sum)/float64(max(c.count, 1)), c.most)
}

// space is every number with a name and beyond, some at random, foreign architectures, and arguments around the rules.
func space(random *rand.Rand, p policy.Policy) func(yield func(Data) bool) {
	numbers := []uint32{1<<30 - 1, 1 << 30, 1<<30 + 1, 1 << 31, math.MaxUint32}
	for nr := range uint32(1100) {
		numbers = append(numbers, nr, nr|syscalls.X32Flag)
	}
	for range 500 {
		numbers = append(numbers, random.Uint32())
	}
	return func(yield func(Data) bool) {
		for _, arch := range []uint32{0xc000003e, 0x40000003, 0xc00000b7, 0, math.MaxUint32} {
			for i, nr := range numbers {
				if arch != 0xc000003e && i%16 > 0 {
					continue // one answer for all of them
				}
				for _, args := range around(p.ABIs[syscalls.X86_64].Args[nr]) {
					if !yield(Data{Nr: nr, Arch: arch, IP: random.Uint64(), Args: args}) {
						return
					}
				}
			}
		}
	}
}
