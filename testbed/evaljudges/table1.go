// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"strings"

	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// rareness is a line of Table 1 of Optimus (J. Cloud Computing 13:71, 2024): an operation that training misses, the calls that
// they name, and what stands for it here.
type rareness struct {
	Image, Operation string
	Calls            []string
	Service          string
	Ops              []string
}

var table1 = []rareness{
	{"PostgreSQL", "memory buffer growth", []string{"mremap"}, "postgresql", []string{"memory-growth"}},
	{"Nginx", "configuration reload", []string{"lstat", "umask", "getpgrp", "kill"}, "nginx", []string{"reload"}},
	{"Nginx", "cache purge", []string{"unlink"}, "nginx", []string{"cache-purge"}},
	{"Apache httpd", "reconfiguration", []string{"dup2", "sysinfo", "getpgrp", "kill", "tgkill"}, "apache2", []string{"graceful", "restart"}},
}

// ofTable1 tells whether an operation stands for a line of the table.
func ofTable1(service, op string) bool {
	return slices.ContainsFunc(table1, func(r rareness) bool { return r.Service == service && slices.Contains(r.Ops, op) })
}

// fate of a call that the paper names, in an operation here: the call was taken out of what was learned, if it was there.
func fate(call string, op opResult, l life, p policy.Policy) string {
	for _, c := range append(slices.Clone(l.Cases), op.Cases...) {
		if c.Question.Call.String() == call {
			return c.Decision.Verdict.String()
		}
	}
	var phases []string
	for abi, calls := range p.ABIs {
		nr, ok := syscalls.Number(abi, call)
		for _, phase := range policy.Phases {
			if ok && calls.Phases[phase].Has(nr) {
				phases = append(phases, phase.String())
			}
		}
	}
	if len(phases) > 0 {
		return "was learned (" + strings.Join(phases, ", ") + "), taken out, and not asked for"
	}
	return "not made"
}
