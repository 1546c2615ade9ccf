// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/hint"
	"github.com/whittle-sec/whittle/internal/policy"
)

func newPolicyDiff(a *app) *cobra.Command {
	return &cobra.Command{
		Use:               "diff OLD NEW",
		Short:             "what NEW has that OLD has not, and the other way round",
		Long:              "Compare two policies: each a workload, a workload and a version of its history (redis-1f2e@3), or a file.",
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: a.completeWorkloads(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			before, err := a.versioned(cmd, args[0])
			if err != nil {
				return err
			}
			after, err := a.versioned(cmd, args[1])
			if err != nil {
				return err
			}
			changes := policy.Diff(before, after)
			if a.json {
				return a.printJSON(append([]policy.Change{}, changes...))
			}
			for _, c := range changes {
				if _, err := fmt.Fprintln(a.out, c); err != nil {
					return err
				}
			}
			if len(changes) == 0 {
				a.say("no difference")
			}
			return nil
		},
	}
}

// versioned policy: REF or REF@VERSION.
func (a *app) versioned(cmd *cobra.Command, ref string) (policy.Policy, error) {
	name, text, ok := strings.Cut(ref, "@")
	if !ok || isFile(ref) {
		return a.policy(cmd.Context(), ref)
	}
	var version int
	if n, err := fmt.Sscanf(text, "%d", &version); n != 1 || err != nil || version < 1 {
		return policy.Policy{}, usageError{fmt.Errorf("%q is not a version", text)}
	}
	s, err := a.stored(cmd.Context())
	if err != nil {
		return policy.Policy{}, err
	}
	defer s.Close()
	p, err := s.PolicyVersion(cmd.Context(), name, version)
	if errors.Is(err, api.ErrNotFound) {
		return p, hint.Add(fmt.Errorf("version %d of %q: not found", version, oneLine(name)), a.command("policy history "+oneLine(name))+" lists the versions")
	}
	return p, err
}
