// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/spf13/cobra"
	"github.com/whittle-sec/whittle/internal/inject"
)

// newInject is the process that holds tracees, so that its death is not the agent's. It is asked through descriptor 3 only.
func newInject(*app) *cobra.Command {
	return &cobra.Command{
		Use:    "inject",
		Short:  "put a filter into processes that run (called by the agent, with a socket on descriptor 3)",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE:   func(*cobra.Command, []string) error { return inject.Serve(3) },
	}
}
