// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/policy"
)

func newPolicy(a *app) *cobra.Command {
	return group("policy", "what was learned of each workload",
		newPolicyList(a), newPolicyShow(a), newPolicyExplain(a), newPolicyExport(a), newPolicyImport(a), newPolicyDiff(a),
		newPolicyHistory(a))
}

func newPolicyList(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "list the workloads that are known",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := a.stored(cmd.Context())
			if err != nil {
				return err
			}
			defer s.Close()
			all, err := s.Workloads(cmd.Context())
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(append([]api.Summary{}, all...))
			}
			if len(all) == 0 {
				a.say("nothing was learned yet")
				return nil
			}
			w := a.table()
			fmt.Fprintln(w, "WORKLOAD\tID\tBOOT\tRUN\tRELOAD\tSTOP\tRUNS\tSTATE\tCOMMAND")
			for _, p := range all {
				fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%d\t%d\t%s\t%s\n", p.Name, p.ID, p.ByPhase["boot"], p.ByPhase["run"],
					p.ByPhase["reload"], p.ByPhase["stop"], p.Runs, standing(p.Complete, p.Settled), oneLine(strings.Join(p.Command, " ")))
			}
			return w.Flush()
		},
	}
}

// standing of a policy in two words.
func standing(complete bool, s policy.Settled) string {
	word := "partial"
	if complete {
		word = "complete"
	}
	if s.Settled {
		return word + ", settled"
	}
	return word + ", learning"
}

func newPolicyHistory(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "history WORKLOAD",
		Short: "list the versions of a policy",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := a.stored(cmd.Context())
			if err != nil {
				return err
			}
			defer s.Close()
			all, err := s.History(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(append([]api.Revision{}, all...))
			}
			w := a.table()
			fmt.Fprintln(w, "VERSION\tTIME\tCALLS\tWHY")
			for _, r := range all {
				fmt.Fprintf(w, "%d\t%s\t%d\t%s\n", r.Version, r.Time.Local().Format("2006-01-02 15:04:05"), r.Calls, oneLine(r.Why))
			}
			return w.Flush()
		},
	}
}

func newPolicyDiff(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "diff OLD NEW",
		Short: "what NEW has that OLD has not, and the other way round",
		Long:  "Compare two policies: each a workload, a workload and a version of its history (redis-1f2e@3), or a file.",
		Args:  cobra.ExactArgs(2),
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
	return s.PolicyVersion(cmd.Context(), name, version)
}

// isPolicy tells a policy of Whittle's from other JSON by the keys that only it has.
func isPolicy(text []byte) bool {
	var probe struct {
		ABIs     json.RawMessage `json:"abis"`
		Workload json.RawMessage `json:"workload"`
	}
	return json.Unmarshal(text, &probe) == nil && probe.ABIs != nil && probe.Workload != nil
}

func parsePolicy(text []byte) (policy.Policy, error) { return policy.Read(bytes.NewReader(text)) }

// words on one line.
func words(list []string) string { return strings.Join(list, " ") }
