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
		newPolicyHistory(a), newPolicyMode(a), newPolicyAllow(a), newPolicyDeny(a))
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
