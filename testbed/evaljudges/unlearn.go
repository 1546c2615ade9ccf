// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/store"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// unlearnedFor an operation are the calls of its line in Table 1: here, a training may have seen some of them all the same.
func unlearnedFor(service, op string) []string {
	for _, t := range table1 {
		if t.Service == service && slices.Contains(t.Ops, op) {
			return t.Calls
		}
	}
	return nil
}

// unlearn calls in the state of an agent that does not run, as if nobody had ever seen them: they are taken out of the policy
// that it has, and not withheld.
func unlearn(ctx context.Context, dir, workload string, names []string) (err error) {
	s, err := store.Open(filepath.Join(dir, "state"), time.Now)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	p, _, err := s.Policy(ctx, workload)
	if err != nil {
		return err
	}
	if p, err = unseen(p, names); err != nil {
		return err
	}
	_, err = s.PutPolicy(ctx, p, "evaluation: as if these had not been seen")
	return err
}

// unseen makes a policy that is as if calls had not been seen.
func unseen(p policy.Policy, names []string) (policy.Policy, error) {
	text, err := policy.Encode(p) // a copy that shares nothing
	if err != nil {
		return p, err
	}
	if err := p.UnmarshalJSON(text); err != nil {
		return p, fmt.Errorf("copy a policy: %w", err)
	}
	for abi, calls := range p.ABIs {
		for _, name := range names {
			nr, ok := syscalls.Number(abi, name)
			if !ok {
				continue
			}
			strip(calls.Phases, nr)
			calls.Exec.Remove(nr)
			delete(calls.Evidence, nr)
			for _, role := range slices.Sorted(maps.Keys(calls.Roles)) {
				r := calls.Roles[role]
				strip(r.Phases, nr)
				r.Birth.Remove(nr)
				calls.Roles[role] = r
			}
			if calls.Floor.Has(nr) { // the runtime's own is not the service's
				calls.Evidence[nr] = policy.Evidence{Source: "floor"}
			}
		}
	}
	return p, nil
}

func strip(phases map[policy.Phase]syscalls.Set, nr uint32) {
	for phase, set := range phases {
		set.Remove(nr)
		phases[phase] = set
	}
}
