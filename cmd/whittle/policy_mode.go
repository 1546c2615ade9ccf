// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/hint"
)

func newPolicyMode(a *app) *cobra.Command {
	var why string
	cmd := &cobra.Command{
		Use:   "mode [WORKLOAD [MODE]]",
		Short: "show or set what is done with the containers of a workload",
		Long: `Without arguments, list the modes of all workloads; with a workload, show its mode; with both, set it, for the containers
that run too.

  auto      learn, then shadow once the workload has settled, then enforce after a time of shadow in which nothing would have
            been denied
  learn     observe only
  shadow    decide and count what is held, and refuse nothing
  enforce   refuse what the policy does not allow
  off       nothing: not even observe`,
		Example:           `  sudo whittle policy mode redis-1f2e shadow`,
		Args:              cobra.MaximumNArgs(2),
		ValidArgsFunction: a.completeMode,
		RunE: func(cmd *cobra.Command, args []string) error {
			client := api.NewClient(a.socket)
			defer client.Close()
			if len(args) == 2 {
				return a.setMode(cmd.Context(), client, api.ModeChange{
					Workload: args[0], Mode: api.WorkloadMode(args[1]), By: invoker(), Why: why,
				})
			}
			return a.showModes(cmd.Context(), client, args)
		},
	}
	cmd.Flags().StringVar(&why, "why", "", "`TEXT` for the journal")
	return cmd
}

func (a *app) completeMode(cmd *cobra.Command, args []string, text string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) != 1 {
		names, _ := a.completeWorkloads(1)(cmd, args, text)
		return names, cobra.ShellCompDirectiveNoFileComp
	}
	return modeNames(), cobra.ShellCompDirectiveNoFileComp
}

func modeNames() (names []string) {
	for _, m := range api.WorkloadModes {
		names = append(names, string(m))
	}
	return names
}

func (a *app) showModes(ctx context.Context, client *api.Client, args []string) error {
	one := strings.Join(args, "")
	modes, err := client.Modes(ctx, one)
	if err != nil {
		return whatRuns(err)
	}
	if a.json {
		return a.printJSON(append([]api.ModeState{}, modes...))
	}
	if len(modes) == 0 {
		a.say("nothing was learned yet")
		return nil
	}
	w := a.table()
	fmt.Fprintln(w, "WORKLOAD\tMODE\tNOW\tSET BY\tSINCE\tWOULD DENY\tNEXT")
	for _, m := range modes {
		since, denied := "-", "-"
		if !m.Since.IsZero() {
			since = m.Since.Local().Format(time.DateTime)
		}
		if m.Now == api.ModeShadow {
			denied = fmt.Sprint(m.WouldDeny)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", oneLine(m.Name), m.Mode, m.Now, oneLine(m.Set), since, denied, oneLine(m.Next))
	}
	return w.Flush()
}

func (a *app) setMode(ctx context.Context, client *api.Client, c api.ModeChange) error {
	if !slices.Contains(api.WorkloadModes, c.Mode) {
		return usageError{hint.Add(fmt.Errorf("unknown mode %q", oneLine(string(c.Mode))), "the modes are "+strings.Join(modeNames(), ", "))}
	}
	m, err := client.SetMode(ctx, c)
	if err != nil {
		return whatRuns(err)
	}
	if a.json {
		return a.printJSON(m)
	}
	text := fmt.Sprintf("%s: %s", oneLine(m.Name), m.Mode)
	if m.Now != m.Mode {
		text += ", now " + string(m.Now)
	}
	if m.Next != "" {
		text += "; next: " + oneLine(m.Next)
	}
	if _, err := fmt.Fprintln(a.out, text); err != nil {
		return err
	}
	s, err := client.Status(ctx)
	if err != nil {
		return err
	}
	for _, r := range s.Containers {
		if r.WorkloadID != m.Workload {
			continue
		}
		if _, err := fmt.Fprintf(a.out, "  %s %s\n", oneLine(r.Name), a.effect(r, m.Now)); err != nil {
			return err
		}
	}
	return nil
}

// effect of a mode on a container that runs.
func (a *app) effect(c api.Container, now api.WorkloadMode) string {
	held := c.Supervision != nil && c.Supervision.Listeners > 0
	switch {
	case held && now == api.ModeEnforce:
		return "is supervised: what its policy does not allow is refused from now on"
	case held && now == api.ModeShadow:
		return "is supervised: what would be refused is counted from now on, and let through"
	case held:
		return "keeps its filter until it ends: held calls are let through from now on"
	case c.Supervision != nil && c.Supervision.Sealed:
		return "is sealed: that stays until it ends, in every mode"
	case now == api.ModeEnforce || now == api.ModeShadow:
		return "has no filter yet: it is attached to now, or at its next start; " + a.command("status "+shellWord(c.Name)) + " shows it"
	case now == api.ModeLearn:
		return "is observed, and nothing is refused"
	}
	return "is left alone"
}
