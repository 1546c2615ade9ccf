// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"github.com/whittle-sec/whittle/internal/agent"
	"github.com/whittle-sec/whittle/internal/judge"
	"github.com/whittle-sec/whittle/internal/policy"
)

// completionPatience: a shell that waits for Tab must not wait for an agent that hangs.
const completionPatience = time.Second

// completeWorkloads is for commands whose first most arguments are workloads or files: the shell adds the files itself.
func (a *app) completeWorkloads(most int) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) >= most {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		// cobra does not run PersistentPreRun here.
		a.ownState = cmd.Flags().Changed("state")
		ctx, cancel := context.WithTimeout(context.Background(), completionPatience)
		defer cancel()
		s, err := a.stored(ctx)
		if err != nil {
			return nil, cobra.ShellCompDirectiveDefault
		}
		defer s.Close()
		all, err := s.Workloads(ctx)
		if err != nil {
			return nil, cobra.ShellCompDirectiveDefault
		}
		var names []cobra.Completion
		for _, w := range all {
			names = append(names, w.Name)
		}
		return names, cobra.ShellCompDirectiveDefault
	}
}

// completeFlag with a choice of values.
func completeFlag(cmd *cobra.Command, flag string, values ...string) {
	if err := cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err)
	}
}

// addCompletion of the flags whose values are words, and the verbs of `whittle completion`: cobra makes these late, and
// answers an unknown shell with its help and success.
func addCompletion(root *cobra.Command) {
	phases := make([]string, 0, len(policy.Phases))
	for _, p := range policy.Phases {
		phases = append(phases, p.String())
	}
	choices := map[string][]string{
		"phase": phases, "format": {"oci", "spo", "systemd"}, "lane": {"exec"}, "kind": agent.Kinds,
		"without": judge.Names, "only": judge.Names,
	}
	root.InitDefaultCompletionCmd()
	for _, noun := range root.Commands() {
		if noun.Name() == "completion" {
			noun.RunE = func(cmd *cobra.Command, _ []string) error {
				return usageError{fmt.Errorf("%s needs a shell; see %s --help", cmd.CommandPath(), cmd.CommandPath())}
			}
		}
		for _, cmd := range append(noun.Commands(), noun) {
			for flag, values := range choices {
				if _, has := cmd.GetFlagCompletionFunc(flag); !has && cmd.Flags().Lookup(flag) != nil {
					completeFlag(cmd, flag, values...)
				}
			}
		}
	}
}
