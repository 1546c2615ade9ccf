// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"github.com/whittle-sec/whittle/internal/hint"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

type runFlags struct {
	record, policy string
	learn, mountNS bool
}

func newRun(a *app) *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:   "run [flags] -- COMMAND…",
		Short: "learn from a command, or enforce what was learned; no container engine needed",
		Long: `Run a command in a cgroup of its own. It keeps its standard input, output and error; signals are passed on, and its exit
status is whittle's (128 + N if signal N ended it).

The first run of a command learns, and stores what it learned. Later runs enforce it if it is complete; --learn learns
more instead. With --record and --policy a file takes the place of the store.`,
		Example: `  sudo whittle run --record policy.json -- redis-server --port 7777
  sudo whittle run --policy policy.json -- redis-server --port 7777
  sudo whittle run -- ./batch-job        # learns; the next time it is enforced`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("no command was given")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case f.learn && f.record+f.policy != "":
				return usageError{errors.New("--learn adds to what is stored: it does not go with --record or --policy")}
			case f.record != "" && f.policy != "":
				return usageError{errors.New("--record learns and --policy enforces: give one of them")}
			case f.record != "":
				return a.record(cmd.Context(), args, f)
			case f.policy != "":
				p, err := readPolicy(f.policy)
				if err != nil {
					return err
				}
				return a.enforce(cmd.Context(), args, p, f)
			}
			return a.runStored(cmd.Context(), args, f)
		},
	}
	// What follows COMMAND is its own, also without the --.
	cmd.Flags().SetInterspersed(false)
	cmd.Flags().StringVar(&f.record, "record", "", "learn, and write the policy to `FILE`")
	cmd.Flags().StringVar(&f.policy, "policy", "", "enforce the policy in `FILE`")
	cmd.Flags().BoolVar(&f.learn, "learn", false, "learn more, although a complete policy is stored")
	cmd.Flags().BoolVar(&f.mountNS, "mount-ns", false, "give the command a mount namespace of its own")
	return cmd
}

// needRoot for observation; says how to go on.
func needRoot() error {
	if os.Geteuid() == 0 {
		return nil
	}
	return hint.Add(errors.New("observing system calls needs root"), "run it with sudo")
}

// enforceable tells why a policy cannot be enforced here.
func enforceable(p policy.Policy) error {
	for abi := range p.ABIs {
		if abi == native || native == syscalls.X86_64 && (abi == syscalls.I386 || abi == syscalls.X32) {
			return nil
		}
	}
	return hint.Add(fmt.Errorf("the policy has no %s calls", native), "it was recorded on another machine: record it again")
}
