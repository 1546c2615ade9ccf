// SPDX-License-Identifier: Apache-2.0

package filter

import (
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/whittle-sec/whittle/internal/syscalls"
)

// Audit compares a profile with the engine's default, in the native ABI.
type Audit struct {
	// Allowed counts the calls that the profile lets through with any or with some arguments, Checked the latter.
	Allowed        int `json:"allowed"`
	Checked        int `json:"checked"`
	DefaultAllowed int `json:"default_allowed"`
	// Added are let through here and not by the default, Removed the reverse. Sorted.
	Added   []string `json:"added"`
	Removed []string `json:"removed"`
	// Aliased are calls whose conditions refuse a value and let the same value through with bits set in its upper half. The
	// kernel drops that half of an int: socket(0x100000028) is socket(AF_VSOCK), and "family > 40" allows it. Sorted.
	Aliased []string `json:"aliased,omitempty"`
	// Set is what Allowed counts.
	Set syscalls.Set `json:"-"`
}

// NewAudit of a profile on a host with this native ABI.
func NewAudit(p *specs.LinuxSeccomp, native syscalls.ABI) (Audit, error) {
	standard, err := DefaultProfile(native)
	if err != nil {
		return Audit{}, err
	}
	allowed, checked := Allowed(p, native)
	own := allowed[native].Union(checked[native])
	allowed, theirChecked := Allowed(standard, native)
	theirs := allowed[native].Union(theirChecked[native])
	return Audit{
		Allowed: own.Len(), Checked: checked[native].Len(), DefaultAllowed: theirs.Len(),
		Added: own.Minus(theirs).Names(native), Removed: theirs.Minus(own).Names(native), Set: own,
		Aliased: aliased(p, checked[native].Names(native)),
	}, nil
}

// aliased finds them by trying the values that the conditions name.
func aliased(p *specs.LinuxSeccomp, names []string) (found []string) {
	byName, fallback := verdictsByName(p)
	for _, name := range names {
		v := byName[name]
		if v != nil && slices.ContainsFunc(v.Conditions, func(c condition) bool {
			return slices.ContainsFunc(c.Args, func(a specs.LinuxSeccompArg) bool {
				var plain, high [argCount]uint64
				plain[a.Index] = uint64(uint32(a.Value))
				high[a.Index] = plain[a.Index] | 1<<32
				return !v.decide(plain, fallback).passes() && v.decide(high, fallback).passes()
			})
		}) {
			found = append(found, name)
		}
	}
	return found
}

// decide on a call with these arguments. Where several conditions hold, the least strict counts: libseccomp's order is not
// documented.
func (v *verdicts) decide(args [argCount]uint64, fallback effect) effect {
	if v.Plain != nil {
		return *v.Plain
	}
	decided := fallback
	for _, c := range v.Conditions {
		if !slices.ContainsFunc(c.Args, func(a specs.LinuxSeccompArg) bool { return !holds(a, args) }) {
			if c.Effect.passes() {
				return c.Effect
			}
			decided = c.Effect
		}
	}
	return decided
}

func holds(a specs.LinuxSeccompArg, args [argCount]uint64) bool {
	if a.Index >= argCount {
		return false
	}
	switch x := args[a.Index]; a.Op {
	case specs.OpNotEqual:
		return x != a.Value
	case specs.OpLessThan:
		return x < a.Value
	case specs.OpLessEqual:
		return x <= a.Value
	case specs.OpEqualTo:
		return x == a.Value
	case specs.OpGreaterEqual:
		return x >= a.Value
	case specs.OpGreaterThan:
		return x > a.Value
	case specs.OpMaskedEqual:
		return x&a.Value == a.ValueTwo&a.Value
	}
	return false
}
