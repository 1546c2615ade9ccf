// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/whittle-sec/whittle/internal/api"
)

func newSeal(a *app) *cobra.Command {
	var r api.SealRequest
	cmd := &cobra.Command{
		Use:   "seal CONTAINER",
		Short: "have the kernel refuse what a running container no longer needs, for good",
		Long: `Stack a plain filter on what a running container has: every call that its policy does not allow while running, reloading
or stopping is refused by the kernel, and nobody is asked. It needs no agent afterwards. A seal cannot be taken off: to allow
more, change the policy and start the container again.`,
		Example:           `  sudo whittle seal --dry-run web`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeContainers,
		RunE: func(cmd *cobra.Command, args []string) error {
			if r.Container = args[0]; r.Container == "" {
				return usageError{errors.New("the name of the container is empty")}
			}
			client := api.NewClient(a.socket)
			defer client.Close()
			done := a.progress("sealing " + oneLine(args[0]))
			result, err := client.Seal(cmd.Context(), r)
			done()
			if err != nil {
				return whatRuns(err)
			}
			text, numbers := sealedText(result)
			return a.attached(result, text, numbers, "seal "+shellWord(args[0]))
		},
	}
	cmd.Flags().BoolVar(&r.DryRun, "dry-run", false, "say what would happen, and change nothing")
	return cmd
}

func sealedText(r api.AttachResult) (text, numbers string) {
	verb := "is"
	if r.DryRun {
		verb = "would be"
	}
	text = fmt.Sprintf("%s %s sealed with the policy of %s, until it ends", oneLine(r.Container), verb, oneLine(r.Workload))
	return text, fmt.Sprintf("%s pass, %d are refused", count(r.Open, "call"), r.Refused)
}
