// SPDX-License-Identifier: Apache-2.0

package filter

import (
	"cmp"
	"slices"

	"github.com/whittle-sec/whittle/internal/policy"
)

const argCount = 6

// check emits the test of a call's arguments: every index that has rules must match one of them.
func (b *builder) check(match Action, c Check) at {
	yes, no := b.ret(match), b.ret(c.Else)
	byIndex := map[uint8][]policy.ArgRule{}
	for _, r := range c.Rules {
		if r.Index >= argCount {
			// There is no such argument, so nothing can match it.
			return no
		}
		byIndex[r.Index] = append(byIndex[r.Index], r)
	}
	for index := argCount - 1; index >= 0; index-- {
		if rules := byIndex[uint8(index)]; len(rules) > 0 {
			yes = b.argument(uint32(index), rules, yes, no)
		}
	}
	return yes
}

// argument emits the test of one argument against its alternatives, grouped by mask and by the upper half of the value
// so that each half is loaded once a group. BPF has 32 bits: the 64-bit comparison is one of each half.
func (b *builder) argument(index uint32, rules []policy.ArgRule, yes, no at) at {
	rules = slices.DeleteFunc(slices.Clone(rules), func(r policy.ArgRule) bool { return r.Value&^r.Mask != 0 })
	slices.SortFunc(rules, func(r, s policy.ArgRule) int {
		return cmp.Or(cmp.Compare(r.Mask, s.Mask), cmp.Compare(r.Value, s.Value))
	})
	rules = slices.Compact(rules)
	next := no
	for len(rules) > 0 {
		mask := rules[len(rules)-1].Mask
		first := slices.IndexFunc(rules, func(r policy.ArgRule) bool { return r.Mask == mask })
		next = b.masked(index, mask, rules[first:], yes, next)
		rules = rules[:first]
	}
	return next
}

// masked emits the test of one argument under one mask. The rules are sorted by value and have no duplicates.
func (b *builder) masked(index uint32, mask uint64, rules []policy.ArgRule, yes, no at) at {
	offset := offArgs + 8*index // of the lower half: seccomp_data is little-endian on every ABI that Whittle knows
	low, high := uint32(mask), uint32(mask>>32)
	if mask == 0 {
		return yes
	}
	halves := no
	for len(rules) > 0 {
		upper := uint32(rules[len(rules)-1].Value >> 32)
		first := slices.IndexFunc(rules, func(r policy.ArgRule) bool { return uint32(r.Value>>32) == upper })
		lower := yes
		if low != 0 {
			lower = no
			for _, r := range slices.Backward(rules[first:]) {
				lower = b.branch(opJeq, uint32(r.Value), yes, lower)
			}
			lower = b.load(offset, b.mask(low, lower))
		}
		if high == 0 {
			return lower // every value has an upper half of 0
		}
		halves = b.branch(opJeq, upper, lower, halves)
		rules = rules[:first]
	}
	if halves == no {
		return no
	}
	return b.load(offset+4, b.mask(high, halves))
}
