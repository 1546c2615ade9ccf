// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"

	"github.com/spf13/cobra"
	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/holder"
	"golang.org/x/sys/unix"
)

// newHolder is started by the agent, or by systemd.
func newHolder(a *app) *cobra.Command {
	c := holder.Config{}
	var detach, verbose bool
	cmd := &cobra.Command{
		Use:    "holder",
		Short:  "keep listeners for held calls while no agent runs (started by the agent, or by systemd)",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if detach {
				self, err := os.Executable()
				if err != nil {
					return fmt.Errorf("find this executable: %w", err)
				}
				return holder.Detach(self, c)
			}
			// It is small and makes next to no garbage: what it keeps is at most some KB a listener.
			debug.SetGCPercent(20)
			debug.SetMemoryLimit(256 << 20)
			// It must not end with the terminal, or with whoever reads its log.
			signal.Ignore(unix.SIGHUP, unix.SIGPIPE)
			ctx, cancel := untilSignal(cmd.Context())
			defer cancel()
			c.Log = logger(a.talk, verbose)
			return holder.Serve(ctx, c)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&c.Control, "control", holder.DefaultControl, "`PATH` of the agent's socket")
	flags.StringVar(&c.Listener, "listener", holder.DefaultListener, "`PATH` of the socket for OCI runtimes: listenerPath in their profiles")
	flags.StringVar(&c.Group, "group", api.Group, "`NAME` of the group that may hand listeners over")
	flags.DurationVar(&c.Wait, "wait", holder.DefaultWait, "how long a held call waits for an agent before it is refused")
	flags.DurationVar(&c.Linger, "linger", 0, "how long to stay with nothing to keep; 0 is a minute, negative for ever")
	flags.BoolVar(&detach, "detach", false, "start it in the background")
	flags.BoolVar(&verbose, "debug", false, "log what a developer would want to know")
	return cmd
}
