// SPDX-License-Identifier: Apache-2.0

package filter

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"math/bits"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// maxAlternatives of one call's argument rules. OCI has no OR within an entry, so each combination is an entry.
const maxAlternatives = 256

// OCI makes a runtime-spec profile, in the subset that Podman, Docker, containerd, CRI-O and Kubernetes read alike.
//
// The default is ENOSYS and every refused call that has a name is listed with its errno: so a call newer than the table is
// answered as by an older kernel under crun and under runc. (The other way round, a default of EPERM, runc adds ENOSYS by
// itself from the largest number on that the profile names, and crun never.) Docker before 23 drops defaultErrnoRet: it
// answers EPERM to unnamed calls then, and is no wider.
//
// What the format cannot say, and what happens instead:
//   - lists by architecture: a name that one of the architectures needs is allowed on all of them, see Widened.
//   - calls without a name: they are refused, even if the rules allow them.
//   - names that the runtime's libseccomp does not know: runc and crun leave them out, and the call is refused with the
//     default. A call newer than the host's libseccomp cannot be allowed through an engine at all.
//   - architectures that are not listed: libseccomp kills the thread, where the compiled program gives ENOSYS.
func OCI(r *Rules) (*specs.LinuxSeccomp, error) {
	if len(r.Tables) == 0 {
		return nil, fmt.Errorf("export profile: the policy has no ABI, so everything would be refused")
	}
	errno := uint(enosys)
	out := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, DefaultErrnoRet: &errno}
	for _, abi := range slices.Sorted(maps.Keys(r.Tables)) {
		arch, ok := syscalls.OCIArch(abi)
		if !ok {
			return nil, fmt.Errorf("export profile: ABI %s has no OCI name", abi)
		}
		out.Architectures = append(out.Architectures, specs.Arch(arch))
	}
	groups := make(map[Action][]string)
	var constrained []specs.LinuxSyscall
	for _, name := range r.names() {
		outcome := r.joined(name)
		if outcome.rules == nil {
			groups[outcome.action] = append(groups[outcome.action], name)
			continue
		}
		entries, err := entriesOf(name, outcome.action, outcome.rules)
		if err != nil {
			return nil, err
		}
		constrained = append(constrained, entries...)
		// What does not match an entry falls to the default, and libseccomp refuses an entry without arguments beside
		// one with them. So a constrained call that is to give EPERM gives ENOSYS; and one that is to be held with other
		// arguments is, where these can be listed.
		if others := outcome.others(); len(others) > 0 {
			held, err := entriesOf(name, Notify, [][]policy.ArgRule{others})
			if err != nil {
				return nil, err
			}
			constrained = append(constrained, held...)
		}
	}
	// What is allowed first: it is what people read.
	for _, action := range slices.SortedFunc(maps.Keys(groups), func(a, b Action) int { return cmp.Compare(b, a) }) {
		entry, err := ociEntry(groups[action], action, nil)
		if err != nil {
			return nil, err
		}
		if action != Errno(enosys) {
			out.Syscalls = append(out.Syscalls, entry)
		}
	}
	out.Syscalls = append(out.Syscalls, constrained...)
	return out, nil
}

// names of the calls of any of the ABIs, sorted.
func (r *Rules) names() []string {
	all := make(map[string]bool)
	for abi := range r.Tables {
		for _, name := range syscalls.Known(abi).Names(abi) {
			all[name] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}

// outcome of a name over all ABIs: the least strict of theirs. rules is nil when arguments do not matter; otherwise any
// one of the lists lets the call through.
type outcome struct {
	action Action
	rules  [][]policy.ArgRule
	asks   bool // with other arguments it is held
}

func (r *Rules) joined(name string) (o outcome) {
	for _, abi := range slices.Sorted(maps.Keys(r.Tables)) {
		nr, ok := syscalls.Number(abi, name)
		if !ok {
			continue
		}
		t := r.Tables[abi]
		action := t.Actions[nr]
		c, checked := t.Checks[nr]
		switch {
		case checked && (o.rules != nil || o.action < action):
			o = outcome{action, append(o.rules, c.Rules), action == Allow && c.Else == Notify}
		case !checked && action >= o.action && !(action < Notify && o.rules != nil):
			o = outcome{action: action}
		}
	}
	return o
}

// maxListed bits of a mask, all of whose values are listed to hold a call with those that the rules do not have.
const maxListed = 4

// others are the rules for the arguments with which a call is held: there are some if all rules test the same few bits of one
// argument.
func (o outcome) others() (out []policy.ArgRule) {
	all := slices.Concat(o.rules...)
	if !o.asks || len(all) == 0 || bits.OnesCount64(all[0].Mask) > maxListed {
		return nil
	}
	index, mask := all[0].Index, all[0].Mask
	if slices.ContainsFunc(all, func(r policy.ArgRule) bool { return r.Index != index || r.Mask != mask }) {
		return nil
	}
	for value := mask; ; value = (value - 1) & mask {
		rule := policy.ArgRule{Index: index, Mask: mask, Value: value}
		if !slices.Contains(all, rule) {
			out = append(out, rule)
		}
		if value == 0 {
			return out
		}
	}
}

// entriesOf a call are the product of its alternatives: each entry has one value for each index.
func entriesOf(name string, action Action, lists [][]policy.ArgRule) ([]specs.LinuxSyscall, error) {
	var all []specs.LinuxSyscall
	for _, rules := range lists {
		product := [][]specs.LinuxSeccompArg{nil}
		for _, index := range indexes(rules) {
			alternatives := args(rules, index)
			if len(alternatives) == 1 && alternatives[0].Op == specs.OpMaskedEqual && alternatives[0].Value == 0 {
				continue // any value
			}
			if len(product)*len(alternatives)+len(all) > maxAlternatives {
				return nil, fmt.Errorf("export profile: %s: more than %d combinations of argument values; allow the call "+
					"with any arguments, or constrain fewer", name, maxAlternatives)
			}
			var longer [][]specs.LinuxSeccompArg
			for _, head := range product {
				for _, arg := range alternatives {
					longer = append(longer, append(slices.Clip(head), arg))
				}
			}
			product = longer
		}
		for _, p := range product {
			entry, err := ociEntry([]string{name}, action, p)
			if err != nil {
				return nil, err
			}
			all = append(all, entry)
		}
	}
	return all, nil
}

func indexes(rules []policy.ArgRule) (out []uint8) {
	for _, r := range rules {
		out = append(out, r.Index)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// args are the alternatives for one argument, sorted. There are none if nothing can match.
func args(rules []policy.ArgRule, index uint8) (out []specs.LinuxSeccompArg) {
	for _, r := range rules {
		if r.Index != index || r.Index >= argCount || r.Value&^r.Mask != 0 {
			continue
		}
		if r.Mask == 0 {
			return []specs.LinuxSeccompArg{{Index: uint(index), Op: specs.OpMaskedEqual}}
		}
		arg := specs.LinuxSeccompArg{Index: uint(index), Value: r.Mask, ValueTwo: r.Value, Op: specs.OpMaskedEqual}
		if r.Mask == math.MaxUint64 {
			arg = specs.LinuxSeccompArg{Index: uint(index), Value: r.Value, Op: specs.OpEqualTo}
		}
		out = append(out, arg)
	}
	slices.SortFunc(out, func(a, b specs.LinuxSeccompArg) int {
		return cmp.Or(cmp.Compare(a.Op, b.Op), cmp.Compare(a.Value, b.Value), cmp.Compare(a.ValueTwo, b.ValueTwo))
	})
	return slices.Compact(out)
}

func ociEntry(names []string, a Action, args []specs.LinuxSeccompArg) (specs.LinuxSyscall, error) {
	entry := specs.LinuxSyscall{Names: names, Args: args}
	switch {
	case a == Allow:
		entry.Action = specs.ActAllow
	case a == Notify:
		entry.Action = specs.ActNotify
	case a&^0xffff == actionErrno:
		errno := uint(a & 0xffff)
		entry.Action, entry.ErrnoRet = specs.ActErrno, &errno
	default:
		return entry, fmt.Errorf("export profile: %s: no OCI action for %s", names[0], a)
	}
	return entry, nil
}

// Widened are the calls that the OCI profile of these rules lets through on one architecture because another one needs the
// name. Calls by the same name with other argument rules are not counted.
func Widened(r *Rules) (calls []syscalls.Call) {
	for _, abi := range slices.Sorted(maps.Keys(r.Tables)) {
		for nr := range syscalls.Known(abi).All() {
			call := syscalls.Call{ABI: abi, Nr: nr}
			if r.Tables[abi].Actions[nr] < Notify && r.joined(call.String()).action >= Notify {
				calls = append(calls, call)
			}
		}
	}
	return calls
}

// MarshalOCI is the text of a profile, deterministic and ending in a newline.
func MarshalOCI(p *specs.LinuxSeccomp) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(p); err != nil {
		return nil, fmt.Errorf("encode profile: %w", err)
	}
	return b.Bytes(), nil
}
