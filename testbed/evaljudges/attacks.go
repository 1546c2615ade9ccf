// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/syscalls"
	"github.com/whittle-sec/whittle/testbed/intruder"
)

// attacks that there are. Those with an intruder (package intruder) make calls that the attacked role was not seen to make:
// what the policy gives a role, whoever has taken it over has too, and no judge is asked.
func attacks() []Attack {
	return slices.Concat(injections(), reuses(), otherABIs(), pythonAttacks(), poisonings())
}

// try calls in the process of a site, from one kind of memory.
func try(ctx context.Context, t *Target, s site, from intruder.Origin, names ...string) ([]Attempt, error) {
	var calls []intruder.Call
	for _, name := range names {
		call, err := intruder.Named(name)
		if err != nil {
			return nil, err
		}
		calls = append(calls, call)
	}
	return tryCalls(ctx, t, s, from, calls...)
}

func tryCalls(ctx context.Context, t *Target, s site, from intruder.Origin, calls ...intruder.Call) (made []Attempt, err error) {
	pid, leave, err := s.enter(ctx, t.Instance)
	if err != nil {
		return nil, err
	}
	defer leave()
	results, err := intruder.Make(pid, from, atMaster(calls, pid != t.PID)...)
	for _, r := range results {
		a := Attempt{Call: r.Call.String(), Errno: errnoOf(r.Value), Note: fmt.Sprintf("from %v", from)}
		switch {
		case r.Killed == unix.SIGSYS:
			a.Errno, a.Note = unix.ENOSYS, a.Note+", killed by the filter"
		case r.Killed != 0:
			return made, fmt.Errorf("%v killed the process with %v", r.Call, r.Killed)
		case r.Waits:
			a.Errno, a.Note = unix.EINTR, a.Note+", did not return"
		}
		if r.ABI != nativeABI() {
			a.Note += ", of " + r.ABI.String()
		}
		made = append(made, a)
	}
	return made, err
}

// atMaster has the signals of a worker go to its master, which is the container's first process. What would end that is left out:
// it takes no notice of SIGCONT.
func atMaster(calls []intruder.Call, worker bool) []intruder.Call {
	calls = slices.Clone(calls)
	for i, c := range calls {
		if worker && c.String() == "kill" {
			calls[i].Args = [6]uint64{1, uint64(unix.SIGCONT)}
		}
	}
	return calls
}

// tryAll of the kinds of memory, one after the other. What a program has no instruction for is no attack. What kills the process,
// as an answer to a call of another ABI, is tried in the one that comes in its place, if one does.
func tryAll(ctx context.Context, t *Target, s site, from []intruder.Origin, calls ...intruder.Call) (all []Attempt, err error) {
	for _, origin := range from {
		for left := calls; len(left) > 0 && t.Alive(); {
			made, err := tryCalls(ctx, t, s, origin, left...)
			all, left = append(all, made...), left[len(made):]
			if errors.Is(err, intruder.ErrNone) {
				break
			}
			if err != nil {
				return all, err
			}
		}
	}
	return all, nil
}

func errnoOf(value int64) unix.Errno {
	if value < 0 && value > -4096 {
		return unix.Errno(-value)
	}
	return 0
}

func named2calls(abi syscalls.ABI, names ...string) (calls []intruder.Call, err error) {
	for _, name := range names {
		call, err := intruder.NamedOf(abi, name)
		if err != nil {
			return nil, err
		}
		calls = append(calls, call)
	}
	return calls, nil
}

func words(s string) []string { return strings.Fields(s) }
