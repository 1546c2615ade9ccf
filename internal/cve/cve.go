// SPDX-License-Identifier: Apache-2.0

// Package cve knows which system calls gate known kernel CVEs, and which of them a policy neutralises by refusing those
// calls. It does not know whether a kernel is vulnerable, and sees no ways into the kernel other than system calls.
package cve

import (
	"slices"

	"github.com/whittle-sec/whittle/internal/syscalls"
)

// CVE is one vulnerability of the kernel. An exploit passes every gate.
type CVE struct {
	ID      string   `json:"id"`
	Gates   []Gate   `json:"gates"`
	Sources []string `json:"sources"`          // "confine", "syspart", "kernelctf": see gates.tsv
	Config  []string `json:"config,omitempty"` // kernel options without which the bug is not compiled in, where known
}

// Gate is a group of alternatives, any of which passes it.
type Gate []Alternative

// Alternative is a call, and the argument without which the call does not pass the gate ("CLONE_NEWUSER"), or "".
type Alternative struct {
	Call string `json:"call"`
	Arg  string `json:"arg,omitempty"`
}

func (a Alternative) String() string {
	if a.Arg == "" {
		return a.Call
	}
	return a.Call + "(" + a.Arg + ")"
}

// Allowed reports whether a policy lets a call through. With an arg, the question is whether the call gets through with
// that argument (see Registers); who cannot tell answers true.
type Allowed func(call syscalls.Call, arg string) bool

// Neutralised splits All by whether a policy neutralises them. The abis are those that the policy admits at all; with
// none given nothing is known of the policy, and nothing counts as neutralised.
func Neutralised(abis []syscalls.ABI, allowed Allowed) (neutralised, exposed []CVE) {
	for _, c := range All() {
		if c.Neutralised(abis, allowed) {
			neutralised = append(neutralised, c)
		} else {
			exposed = append(exposed, c)
		}
	}
	return neutralised, exposed
}

// Neutralised reports whether some gate is wholly blocked: every alternative, every equivalent of it, in every ABI. The
// ABIs count together, because one process can pass one gate through x86-64 and the next through int 0x80.
func (c CVE) Neutralised(abis []syscalls.ABI, allowed Allowed) bool {
	return len(abis) > 0 && slices.ContainsFunc(c.Gates, func(g Gate) bool { return len(g.Open(abis, allowed)) == 0 })
}

// Open is the calls that a policy allows and that pass the gate, by ABI and number.
func (g Gate) Open(abis []syscalls.ABI, allowed Allowed) (open []syscalls.Call) {
	for _, abi := range abis {
		var set syscalls.Set
		for _, alt := range g {
			for nr := range syscalls.EquivalentsOf(abi, alt.Call).All() {
				if allowed(syscalls.Call{ABI: abi, Nr: nr}, alt.Arg) {
					set.Add(nr)
				}
			}
		}
		for nr := range set.All() {
			open = append(open, syscalls.Call{ABI: abi, Nr: nr})
		}
	}
	return open
}

// Reopened is the CVEs that a policy neutralises and that it would no longer neutralise if it also allowed the call, with
// any arguments. It is the price of letting the call through.
func Reopened(abis []syscalls.ABI, allowed Allowed, call syscalls.Call) (reopened []CVE) {
	with := func(c syscalls.Call, arg string) bool { return c == call || allowed(c, arg) }
	abisWith := abis
	if !slices.Contains(abis, call.ABI) {
		abisWith = append(slices.Clone(abis), call.ABI)
	}
	for _, c := range All() {
		if c.Neutralised(abis, allowed) && !c.Neutralised(abisWith, with) {
			reopened = append(reopened, c)
		}
	}
	return reopened
}

// Gated is the calls of the ABI that pass a gate of some CVE, equivalents included. A call outside it is harmless as far
// as this data goes.
func Gated(abi syscalls.ABI) (s syscalls.Set) {
	for _, c := range All() {
		for _, gate := range c.Gates {
			for _, alt := range gate {
				s = s.Union(syscalls.EquivalentsOf(abi, alt.Call))
			}
		}
	}
	return s
}
