// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os/signal"

	"github.com/spf13/cobra"
	"github.com/whittle-sec/whittle/internal/renew"
	"golang.org/x/sys/unix"
)

// newRenewJob is started by the agent, in a session of its own, and outlives it.
func newRenewJob(a *app) *cobra.Command {
	return &cobra.Command{
		Use:    renew.JobCommand,
		Short:  "make a renewal that is read from standard input (started by the agent)",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			signal.Ignore(unix.SIGHUP, unix.SIGPIPE) // the agent may be gone when there is something to tell it
			ctx, cancel := untilSignal(cmd.Context())
			defer cancel()
			var done func()
			defer func() {
				if done != nil {
					done()
				}
			}()
			return renew.ServeJob(ctx, a.in, a.out, func(j renew.Job) (*renew.Runner, error) {
				if j.Engine == "" {
					return nil, fmt.Errorf("no engine is named")
				}
				m := makers{engine: j.Engine, podman: j.Socket, docker: j.Socket}
				list, closeAll, err := m.all()
				if err != nil {
					return nil, err
				}
				done = closeAll
				return &renew.Runner{Engine: list[0], Dir: j.Dir}, nil
			})
		},
	}
}
