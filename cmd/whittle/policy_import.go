// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/spf13/cobra"
	"github.com/whittle-sec/whittle/internal/filter"
	"github.com/whittle-sec/whittle/internal/hint"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
	"github.com/whittle-sec/whittle/internal/workload"
)

func newPolicyImport(a *app) *cobra.Command {
	var image, digest string
	cmd := &cobra.Command{
		Use:   "import FILE [-- COMMAND…]",
		Short: "add a policy or a profile to what is stored",
		Long: `Add a policy of Whittle's, an OCI profile or a SeccompProfile to what is stored. A profile does not say whose it is: name
the image and its command.`,
		Example: `  whittle policy import policy.json
  whittle policy import profile.json --image docker.io/library/redis:7 -- redis-server`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := readBounded(args[0], filter.MaxProfileSize)
			if err != nil {
				return err
			}
			var p policy.Policy
			why := "imported from " + workload.Printable(args[0], 200)
			if isPolicy(text) {
				p, err = parsePolicy(text)
			} else if image == "" {
				return usageError{hint.Add(fmt.Errorf("%s is a profile, which does not say whose it is", args[0]),
					"whittle policy import "+args[0]+" --image IMAGE -- COMMAND")}
			} else {
				w := workload.Workload{Image: image, Digest: digest, Command: args[1:]}
				p, err = filter.Import(text, w, native)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			s, done, err := a.writable(cmd.Context())
			if err != nil {
				return err
			}
			defer done()
			if err := s.Import(cmd.Context(), p, why); err != nil {
				return err
			}
			if a.json {
				return a.printJSON(map[string]any{"workload": p.Workload.ID(), "name": p.Workload.Name(), "calls": countCalls(p)})
			}
			_, err = fmt.Fprintf(a.out, "%s: %d calls\n", p.Workload.Name(), countCalls(p))
			return err
		},
	}
	cmd.Flags().StringVar(&image, "image", "", "name of the image, for a profile")
	cmd.Flags().StringVar(&digest, "digest", "", "digest of the image, for a profile")
	return cmd
}

// countCalls that the service may make in some phase.
func countCalls(p policy.Policy) (n int) {
	for _, c := range p.ABIs {
		var all syscalls.Set
		for _, s := range c.Phases {
			all = all.Union(s)
		}
		n += all.Len()
	}
	return n
}
