// SPDX-License-Identifier: Apache-2.0

package filter

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"

	moby "github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
	"github.com/whittle-sec/whittle/internal/workload"
)

// maxRules of one imported call: a comparison for order needs up to 64.
const maxRules = 600

const importedReason = "imported"

// Import reads a profile (see Parse) into a policy for w: what the profile allows is granted in every phase, what it
// answers with ENOSYS keeps that answer. The policy is partial, because nobody observed the workload. A profile that
// allows by default, or nothing at all, is an error.
func Import(text []byte, w workload.Workload, native syscalls.ABI) (policy.Policy, error) {
	p, err := Parse(text, native)
	if err != nil {
		return policy.Policy{}, fmt.Errorf("import profile: %w", err)
	}
	out, err := imported(p, w, native)
	if err != nil {
		return policy.Policy{}, fmt.Errorf("import profile: %w", err)
	}
	return out, nil
}

func imported(p *specs.LinuxSeccomp, w workload.Workload, native syscalls.ABI) (policy.Policy, error) {
	var none policy.Policy
	if e := effectOf(p.DefaultAction, p.DefaultErrnoRet); e.passes() || e.asks() {
		return none, bad("defaultAction", "a policy lists what is allowed; learn one, or start from the engine's default",
			"the profile lets through what it does not name (%s)", p.DefaultAction)
	}
	if err := knownNames(p); err != nil {
		return none, err
	}
	byName, fallback := verdictsByName(p)
	rules := make(map[string][]policy.ArgRule)
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		if v := byName[name]; v.Plain == nil {
			r, err := ruleList(v.Conditions)
			if err != nil {
				return none, bad(name, "allow the call with any arguments, or write one condition an entry", "%s", err)
			}
			rules[name] = r
		}
	}
	out := policy.Policy{
		Workload: w, Partial: []string{"imported from a profile, not observed"},
		ABIs: make(map[syscalls.ABI]*policy.Calls),
	}
	useful := false
	for _, abi := range profileABIs(p, native) {
		calls := importedCalls(abi, byName, fallback, rules)
		out.ABIs[abi] = calls
		useful = useful || !calls.Phases[policy.Boot].Minus(syscalls.KernelOwn(abi)).Empty()
	}
	if !useful {
		return none, bad("syscalls", "a container needs execve at least; is the action of the entries SCMP_ACT_ALLOW?",
			"the profile allows nothing")
	}
	for abi, calls := range out.ABIs {
		for nr := range syscalls.Known(abi).All() {
			keepENOSYS(out, calls, syscalls.Call{ABI: abi, Nr: nr}, byName, fallback)
		}
	}
	return out, nil
}

func importedCalls(abi syscalls.ABI, byName map[string]*verdicts, fallback effect,
	rules map[string][]policy.ArgRule,
) *policy.Calls {
	var set syscalls.Set
	c := &policy.Calls{
		Evidence: make(map[uint32]policy.Evidence), Denied: make(map[uint32]policy.DeniedCall),
		Args: make(map[uint32][]policy.ArgRule),
	}
	for nr := range syscalls.Known(abi).All() {
		name := syscalls.Name(abi, nr)
		v := byName[name]
		// Held calls (notify) are what the profile's listener would have decided: the policy's own judges do now.
		if !v.passes(fallback) && (v == nil || v.Plain != nil || len(rules[name]) == 0) {
			continue
		}
		set.Add(nr)
		c.Evidence[nr] = policy.Evidence{Source: "granted", Reason: importedReason}
		if r := rules[name]; len(r) > 0 {
			c.Args[nr] = r
		}
	}
	c.Phases = make(map[policy.Phase]syscalls.Set)
	for _, phase := range policy.Phases {
		c.Phases[phase] = set
	}
	return c
}

// keepENOSYS where the profile gives it and the policy would not.
func keepENOSYS(p policy.Policy, c *policy.Calls, call syscalls.Call, byName map[string]*verdicts, fallback effect) {
	e := fallback
	if v := byName[call.String()]; v != nil && v.Plain != nil {
		e = *v.Plain
	}
	_, constrained := c.Args[call.Nr]
	if e != (effect{specs.ActErrno, enosys}) || constrained || c.Phases[policy.Boot].Has(call.Nr) ||
		policy.RefusalErrno(p, call) == policy.ENOSYS {
		return
	}
	c.Denied[call.Nr] = policy.DeniedCall{Errno: policy.ENOSYS}
}

// foreignNames are calls of architectures that Whittle has no table of; the engines' profiles name them.
var foreignNames = sync.OnceValue(func() map[string]bool {
	names := make(map[string]bool)
	for _, s := range moby.DefaultProfile().Syscalls {
		for _, name := range s.Names {
			names[name] = true
		}
	}
	return names
})

// knownNames errs on the first name that no ABI knows and that the profile allows: a misspelt name would be refused.
func knownNames(p *specs.LinuxSeccomp) error {
	for i, entry := range p.Syscalls {
		e := effectOf(entry.Action, entry.ErrnoRet)
		for j, name := range entry.Names {
			if e.passes() && !nameKnown(name) {
				return bad(fmt.Sprintf("syscalls[%d].names[%d]", i, j), hintFor(name),
					"unknown call %q (the table is that of Linux %s)", name, syscalls.TableKernel)
			}
		}
	}
	return nil
}

func nameKnown(name string) bool {
	for _, abi := range syscalls.ABIs {
		if _, ok := syscalls.Number(abi, name); ok {
			return true
		}
	}
	return foreignNames()[name]
}

func hintFor(name string) string {
	lower := strings.TrimPrefix(strings.ToLower(name), "sys_")
	lower = strings.TrimPrefix(lower, "__nr_")
	if lower != name && nameKnown(lower) {
		return "it is called " + lower
	}
	return "remove the name, or correct it"
}

// ruleList turns conditions, of which any one suffices, into rules, which are AND over the arguments and OR over the
// values of one. That is exact where all conditions concern the same single argument, or there is only one condition.
func ruleList(conditions []condition) ([]policy.ArgRule, error) {
	var out []policy.ArgRule
	shape := make(map[uint]bool)
	kept := 0
	for _, c := range conditions {
		if c.Effect.asks() {
			continue
		}
		if !c.Effect.passes() {
			return nil, fmt.Errorf("an entry refuses some arguments; conditions can only allow")
		}
		kept++
		seen := make(map[uint]bool)
		for _, arg := range c.Args {
			if seen[arg.Index] {
				// runc takes it for two entries, crun for one.
				return nil, fmt.Errorf("an entry has two conditions on argument %d, which the runtimes understand differently", arg.Index)
			}
			seen[arg.Index], shape[arg.Index] = true, true
			out = append(out, argRules(arg)...)
		}
	}
	if kept > 1 && len(shape) > 1 {
		return nil, fmt.Errorf("its entries combine several arguments in more than one way")
	}
	out = dedupe(out)
	if len(out) > maxRules {
		return nil, fmt.Errorf("its conditions take %d rules, the limit is %d", len(out), maxRules)
	}
	return out, nil
}

func dedupe(rules []policy.ArgRule) (out []policy.ArgRule) {
	seen := make(map[policy.ArgRule]bool)
	for _, r := range rules {
		if !seen[r] {
			seen[r] = true
			out = append(out, r)
		}
	}
	return out
}

// argRules says any comparison by masks and values: a range of numbers is a set of common prefixes.
func argRules(a specs.LinuxSeccompArg) []policy.ArgRule {
	index := uint8(a.Index)
	// What cannot be met still needs a rule, or the argument would be free.
	never := []policy.ArgRule{{Index: index, Mask: 0, Value: 1}}
	switch v := a.Value; a.Op {
	case specs.OpEqualTo:
		return []policy.ArgRule{{Index: index, Mask: math.MaxUint64, Value: v}}
	case specs.OpMaskedEqual:
		return []policy.ArgRule{{Index: index, Mask: v, Value: a.ValueTwo & v}}
	case specs.OpLessEqual:
		return prefixes(index, 0, v)
	case specs.OpGreaterEqual:
		return prefixes(index, v, math.MaxUint64)
	case specs.OpLessThan:
		if v > 0 {
			return prefixes(index, 0, v-1)
		}
	case specs.OpGreaterThan:
		if v < math.MaxUint64 {
			return prefixes(index, v+1, math.MaxUint64)
		}
	case specs.OpNotEqual:
		var out []policy.ArgRule
		if v > 0 {
			out = prefixes(index, 0, v-1)
		}
		if v < math.MaxUint64 {
			out = append(out, prefixes(index, v+1, math.MaxUint64)...)
		}
		return out
	}
	return never
}

// prefixes covers first..last with as few blocks of a power of two as there are.
func prefixes(index uint8, first, last uint64) (out []policy.ArgRule) {
	for {
		// The largest block that starts at first and does not pass last.
		size := uint64(1) // less one is the mask of the free bits; 0 stands for 2^64
		for size != 0 && first&(size<<1-1) == 0 && size<<1-1 <= last-first {
			size <<= 1
		}
		free := size - 1
		out = append(out, policy.ArgRule{Index: index, Mask: ^free, Value: first})
		if first+free == last {
			return out
		}
		first += size
	}
}
