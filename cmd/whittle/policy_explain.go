// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/whittle-sec/whittle/internal/hint"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

func newPolicyExplain(a *app) *cobra.Command {
	return &cobra.Command{
		Use:               "explain WORKLOAD|FILE CALL",
		Short:             "why a call is allowed or not, in plain words",
		Long:              "Say why a call is allowed or not. CALL is a name, or ABI:NAME for another ABI than the host's (i386:writev).",
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: a.completeWorkloads(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			call, err := parseCall(args[1])
			if err != nil {
				return err
			}
			p, err := a.whole(cmd, args[0])
			if err != nil {
				return err
			}
			e := policy.Explain(p, call)
			if a.json {
				return a.printJSON(e)
			}
			_, err = fmt.Fprintln(a.out, e)
			return err
		},
	}
}

func parseCall(text string) (syscalls.Call, error) {
	abi, name := native, text
	if prefix, rest, ok := strings.Cut(text, ":"); ok {
		var err error
		if abi, err = syscalls.ParseABI(prefix); err != nil {
			return syscalls.Call{}, usageError{hint.Add(err, "the ABIs are x86_64, i386, x32 and arm64")}
		}
		name = rest
	}
	nr, ok := syscalls.Number(abi, name)
	if !ok {
		err := &policy.UnknownCallError{ABI: abi, Name: oneLine(name)}
		return syscalls.Call{}, usageError{hint.Add(err, err.Hint())}
	}
	return syscalls.Call{ABI: abi, Nr: nr}, nil
}
