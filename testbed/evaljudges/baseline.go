// SPDX-License-Identifier: Apache-2.0

package main

import (
	"runtime"
	"sync"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/filter"
	"github.com/whittle-sec/whittle/internal/judge"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// givenBefore are the calls that Docker's default profile lets through, under which the services are learned from. What it
// refuses, they were refused there, too: glibc asks for clone3, is told that there is none, and makes a clone.
var givenBefore = sync.OnceValue(func() map[string]bool {
	out := map[string]bool{}
	abi, ok := syscalls.Native(runtime.GOARCH)
	if !ok {
		return out
	}
	profile, err := filter.DefaultProfile(abi)
	if err != nil {
		return out
	}
	allowed, checked := filter.Allowed(profile, abi)
	for _, set := range []syscalls.Set{allowed[abi], checked[abi]} {
		for _, name := range set.Names(abi) {
			out[name] = true
		}
	}
	return out
})

// asBefore tells whether a refusal is the answer that the service got when it was learned from: EPERM, or for clone3 ENOSYS.
func asBefore(call string, errno int32) bool {
	return !givenBefore()[call] && (call != "clone3" || errno == policy.ENOSYS)
}

// wrong refusals: of calls that the service was not refused before.
func wrong(all []api.HeldLine) (out []api.HeldLine) {
	for _, l := range all {
		if !asBefore(l.Call, l.Errno) {
			out = append(out, l)
		}
	}
	return out
}

// news of the panel in cases: those that are not as before, each once.
func asked(cases []judge.Case) (out []judge.Case) {
	for _, c := range cases {
		if allowed(c) || !asBefore(c.Question.Call.String(), policy.RefusalErrno(policy.Policy{}, c.Question.Call)) {
			out = append(out, c)
		}
	}
	return out
}
