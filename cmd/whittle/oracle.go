// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/hint"
	"github.com/whittle-sec/whittle/internal/oracle"
)

func newOracle(a *app) *cobra.Command {
	return group("oracle", "the hardened twins of workloads: they decide what may be learned while running",
		newOracleSet(a), newOracleShow(a), newOracleList(a), newOracleRemove(a), newOracleHints(a), newOracleUnit(a))
}

func newOracleShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use:               "show WORKLOAD|CONTAINER",
		Short:             "the oracle of one workload",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeOracles,
		RunE: func(cmd *cobra.Command, args []string) error {
			client := api.NewClient(a.socket)
			defer client.Close()
			o, err := oneOracle(cmd.Context(), client, args[0])
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(o)
			}
			_, err = io.WriteString(a.out, a.oracleText(o))
			return err
		},
	}
}

// oneOracle that a name means.
func oneOracle(ctx context.Context, client *api.Client, ref string) (api.OracleState, error) {
	if ref == "" {
		return api.OracleState{}, usageError{errors.New("the name of the workload is empty")}
	}
	all, err := client.Oracles(ctx, ref)
	if err != nil {
		return api.OracleState{}, whatHasOracles(err)
	}
	if len(all) != 1 {
		return api.OracleState{}, whatHasOracles(fmt.Errorf("%w: %q has no oracle", api.ErrNotFound, oneLine(ref)))
	}
	return all[0], nil
}

// whatHasOracles is where to look for the right name.
func whatHasOracles(err error) error {
	if errors.Is(err, api.ErrNotFound) && hint.Of(err) == "" {
		return hint.Add(err, "whittle oracle list shows the workloads that have one; sudo whittle oracle set gives it to another")
	}
	return err
}

// oracleText is everything about one oracle.
func (a *app) oracleText(o api.OracleState) string {
	var page strings.Builder
	row := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&page, "%-10s  %s\n", name, value)
		}
	}
	s := o.Spec
	row("workload", oneLine(o.Name))
	row("kind", fmt.Sprintf("%s (%s): %s", oneLine(string(s.Kind)), oneLine(o.Strength), catches(s.Kind)))
	row("image", orProductions(oneLine(s.Image)))
	row("entrypoint", commandLine(s.Entrypoint))
	row("command", orProductions(commandLine(s.Command)))
	for _, key := range slices.Sorted(maps.Keys(s.Env)) {
		row("env", oneLine(key+"="+s.Env[key]))
	}
	row("preload", oneLine(s.Preload))
	row("quiet", durationOr(s.Quiet, "as whittle chooses"))
	row("drain", durationOr(s.Drain, "production's stop time-out"))
	row("mode", string(o.Mode))
	row("set", strings.TrimSpace(fmt.Sprintf("by %s %s", orSomebody(oneLine(s.By)), sinceText(s.Since))))
	row("why", oneLine(s.Why))
	for _, p := range o.Problems {
		row("problem", oneLine(p))
	}
	for _, n := range o.Notes {
		row("note", oneLine(n))
	}
	return page.String()
}

// catches is what an attack must do for an oracle of this kind to stop it.
func catches(k oracle.Kind) string {
	switch k {
	case oracle.Sanitizer:
		return "aborts at the memory errors that the build looks for"
	case oracle.Valgrind:
		return "aborts at invalid reads and writes of the heap, and at jumps that depend on unset memory"
	case oracle.AuditPython, oracle.AuditNode, oracle.AuditPHP:
		return "aborts when a script does what the audit hook forbids"
	case oracle.Hardened:
		return "aborts at corruptions that the allocator notices, which are some"
	}
	return "of a kind that this version does not know"
}

func orProductions(s string) string {
	if s == "" {
		return "production's"
	}
	return s
}

func orSomebody(s string) string {
	if s == "" {
		return "somebody"
	}
	return s
}

func durationOr(d time.Duration, unset string) string {
	if d == 0 {
		return unset
	}
	return d.String()
}

func sinceText(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format(time.DateTime)
}

// commandLine that a person could type again.
func commandLine(words []string) string {
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = shellWord(w)
	}
	return strings.Join(out, " ")
}

func newOracleList(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "the oracles of all workloads",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client := api.NewClient(a.socket)
			defer client.Close()
			all, err := client.Oracles(cmd.Context(), "")
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(append([]api.OracleState{}, all...))
			}
			if len(all) == 0 {
				a.say("no workload has an oracle: sudo %s", a.command("oracle set WORKLOAD --image IMAGE"))
				return nil
			}
			lines := []tableLine{{row: []string{"WORKLOAD", "KIND", "STRENGTH", "IMAGE", "MODE", "SET BY", "SINCE"}}}
			for _, o := range all {
				l := tableLine{row: []string{
					oneLine(o.Name), oneLine(string(o.Spec.Kind)), oneLine(o.Strength), orProductions(oneLine(o.Spec.Image)),
					oneLine(string(o.Mode)), orSomebody(oneLine(o.Spec.By)), sinceText(o.Spec.Since),
				}}
				for _, p := range o.Problems {
					l.below = append(l.below, "problem: "+oneLine(p))
				}
				lines = append(lines, l)
			}
			_, err = io.WriteString(a.out, table(lines))
			return err
		},
	}
}

func newOracleRemove(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "remove WORKLOAD|CONTAINER",
		Short: "take a workload's oracle away",
		Long: `Take a workload's oracle away. If the oracle serves, production comes back first. What was learned stays, and so does
the mode: what the policy does not allow is refused from now on without a loop.`,
		Example:           `  sudo whittle oracle remove web-2b3c`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeOracles,
		RunE: func(cmd *cobra.Command, args []string) error {
			client := api.NewClient(a.socket)
			defer client.Close()
			o, err := oneOracle(cmd.Context(), client, args[0])
			if err != nil {
				return err
			}
			if err := client.RemoveOracle(cmd.Context(), o.Workload); err != nil {
				return whatHasOracles(err)
			}
			if a.json {
				return a.printJSON(o)
			}
			_, err = fmt.Fprintf(a.out, "%s has no oracle any more\n", oneLine(o.Name))
			return err
		},
	}
}

// completeOracles are the workloads that have one.
func (a *app) completeOracles(_ *cobra.Command, args []string, _ string) (names []cobra.Completion, _ cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(context.Background(), completionPatience)
	defer cancel()
	client := api.NewClient(a.socket)
	defer client.Close()
	all, err := client.Oracles(ctx, "")
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	for _, o := range all {
		names = append(names, cobra.CompletionWithDesc(oneLine(o.Name), oneLine(string(o.Spec.Kind))))
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
