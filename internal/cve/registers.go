// SPDX-License-Identifier: Apache-2.0

package cve

import (
	"slices"

	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// Register is what an argument of a gate looks like to a filter: register Index, masked with Mask, is Value. It has the
// fields of policy.ArgRule.
type Register struct {
	Index uint8
	Mask  uint64
	Value uint64
}

// Overlaps reports whether some value of the register matches both this and a rule (value & mask == want). A policy whose
// rules for the register all fail this does not let the argument through.
func (r Register) Overlaps(mask, want uint64) bool {
	return (r.Value^want)&r.Mask&mask == 0 && want&^mask == 0
}

const (
	// The kernel reads these arguments as int and ignores the upper half of the register.
	wordMask     = 0xffffffff
	cloneNewUser = 0x10000000
	solTCP       = 6
	tcpULP       = 31
)

// registers is how each argument in gates.tsv shows, by call. Nil: it is in memory, which no filter can see.
var registers = map[string]map[string][]Register{
	"CLONE_NEWUSER": {
		"clone":  {{Index: 0, Mask: cloneNewUser, Value: cloneNewUser}},
		"clone3": nil,
	},
	"AF_UNIX":    family(1),
	"AF_NETLINK": family(16),
	"AF_ALG":     family(38),
	"AF_VSOCK":   family(40),
	"TCP_ULP": {
		"setsockopt": {{Index: 1, Mask: wordMask, Value: solTCP}, {Index: 2, Mask: wordMask, Value: tcpULP}},
		"socketcall": nil,
	},
}

func family(nr uint64) map[string][]Register {
	return map[string][]Register{"socket": {{Index: 0, Mask: wordMask, Value: nr}}, "socketcall": nil}
}

// Registers is how a call shows an argument of a gate in its registers; all of them must match. It fails where the
// argument is in memory (clone3, socketcall) and for arguments it does not know: such a call passes the gate whenever it
// is allowed.
func Registers(call syscalls.Call, arg string) ([]Register, bool) {
	r := registers[arg][call.String()]
	return slices.Clone(r), r != nil
}

// takes reports whether a call is known to have an argument, visible or not.
func takes(call, arg string) bool {
	_, ok := registers[arg][call]
	return ok
}

// Passes reports whether a policy's rules for a call let an argument of a gate through: unless the rules of some register
// all fail it. It is true for "", where there are no rules, and where nobody can tell.
func Passes(rules []policy.ArgRule, call syscalls.Call, arg string) bool {
	registers, ok := Registers(call, arg)
	if arg == "" || !ok || len(rules) == 0 {
		return true
	}
	for _, r := range registers {
		ruled, met := false, false
		for _, rule := range rules {
			if rule.Index == r.Index {
				ruled = true
				met = met || r.Overlaps(rule.Mask, rule.Value)
			}
		}
		if ruled && !met {
			return false
		}
	}
	return true
}
