// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/spf13/cobra"
	"github.com/whittle-sec/whittle/internal/install"
)

func newUninstall(a *app) *cobra.Command {
	var o install.Options
	cmd := &cobra.Command{
		Use:   "uninstall --engine podman|docker|containerd",
		Short: "take back what install wrote",
		Long: `Take back what install wrote. Files that nobody has changed since become what they were, byte for byte; from others only
Whittle's part is taken out.`,
		Example: `  sudo whittle uninstall --engine podman --dry-run
  sudo whittle uninstall --engine docker`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return a.changeEngine(o, install.Uninstall, "uninstalled")
		},
	}
	installFlags(cmd, &o)
	return cmd
}
