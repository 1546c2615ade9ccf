// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/spf13/cobra"
	"github.com/whittle-sec/whittle/internal/api"
)

func newPolicyHistory(a *app) *cobra.Command {
	return &cobra.Command{
		Use:               "history WORKLOAD",
		Short:             "list the versions of a policy",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeWorkloads(1),
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
