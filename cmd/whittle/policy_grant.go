// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/workload"
)

func newPolicyAllow(a *app) *cobra.Command {
	var phases []string
	var why string
	cmd := &cobra.Command{
		Use:   "allow WORKLOAD CALL…",
		Short: "allow calls to a workload on your word",
		Long: `Add calls to the policy of a workload, whether they were observed or not. Your name and --why are kept as the evidence.
Supervised containers may make them at once; static profiles have to be exported again.
CALL is a name, or ABI:NAME for another ABI than the host's (i386:writev).`,
		Example:           `  sudo whittle policy allow redis-1f2e getrusage --phase run --why "INFO needs it"`,
		Args:              cobra.MinimumNArgs(2),
		ValidArgsFunction: a.completeWorkloads(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			sel, err := selection(phases, "")
			if err != nil {
				return err
			}
			return a.grant(cmd, args, api.GrantRequest{Allow: true, Phases: sel.Phases, Why: why})
		},
	}
	cmd.Flags().StringSliceVar(&phases, "phase", nil, "only in these phases (boot, run, reload, stop); default all")
	cmd.Flags().StringVar(&why, "why", "", "`TEXT` for the history")
	return cmd
}

func newPolicyDeny(a *app) *cobra.Command {
	var why string
	cmd := &cobra.Command{
		Use:   "deny WORKLOAD CALL…",
		Short: "deny calls to a workload on your word, in every phase",
		Long: `Take calls out of the policy of a workload, for good: they stay out when they are observed again, until they are
allowed. To supervised containers they are refused at once where they are held; what the kernel lets through without asking
is refused from the next start or whittle attach on. What the container runtime needs to start it is left.`,
		Example:           `  sudo whittle policy deny redis-1f2e ptrace process_vm_readv`,
		Args:              cobra.MinimumNArgs(2),
		ValidArgsFunction: a.completeWorkloads(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.grant(cmd, args, api.GrantRequest{Why: why})
		},
	}
	cmd.Flags().StringVar(&why, "why", "", "`TEXT` for the history")
	return cmd
}

// grant one call after the other. All are read before the first is granted.
func (a *app) grant(cmd *cobra.Command, args []string, g api.GrantRequest) error {
	for _, text := range args[1:] {
		if _, err := parseCall(text); err != nil {
			return err
		}
	}
	client := api.NewClient(a.socket)
	defer client.Close()
	g.Workload, g.By = args[0], invoker()
	var all []api.GrantResult
	for _, call := range args[1:] {
		g.Call = call
		r, err := client.Grant(cmd.Context(), g)
		if err != nil {
			return whatRuns(err)
		}
		if all = append(all, r); a.json {
			continue
		}
		if err := a.printGrant(g, r); err != nil {
			return err
		}
	}
	if a.json {
		return a.printJSON(all)
	}
	return nil
}

func (a *app) printGrant(g api.GrantRequest, r api.GrantResult) error {
	for _, c := range r.Changes {
		if _, err := fmt.Fprintln(a.out, c); err != nil {
			return err
		}
	}
	word := "denied"
	if g.Allow {
		word = "allowed"
	}
	text := fmt.Sprintf("%s: %s is %s from version %d on", oneLine(r.Name), oneLine(g.Call), word, r.Version)
	if len(r.Changes) == 0 {
		text = fmt.Sprintf("%s: %s was %s already", oneLine(r.Name), oneLine(g.Call), word)
	}
	if len(r.Containers) > 0 {
		text += ", and now in " + oneLine(strings.Join(r.Containers, ", "))
	}
	if _, err := fmt.Fprintln(a.out, text); err != nil {
		return err
	}
	for _, n := range r.Notes {
		a.say("note: %s", oneLine(n))
	}
	return nil
}

// invoker is who stands behind sudo. The agent knows the user of this process by itself.
func invoker() string {
	if u := os.Getenv("SUDO_USER"); u != "" && os.Geteuid() == 0 {
		return workload.Printable(u, 64)
	}
	return ""
}
