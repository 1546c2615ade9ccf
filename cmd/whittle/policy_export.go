// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/whittle-sec/whittle/internal/agent"
	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/filter"
	"github.com/whittle-sec/whittle/internal/hint"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

func newPolicyExport(a *app) *cobra.Command {
	var format, lane, name string
	var phases []string
	var supervised bool
	cmd := &cobra.Command{
		Use:   "export WORKLOAD|FILE",
		Short: "write a policy as a profile that engines, Kubernetes or systemd enforce",
		Example: `  whittle policy export redis-1f2e > redis.json && podman run --security-opt seccomp=redis.json redis
  whittle policy export redis-1f2e --format spo | kubectl apply -f -
  whittle policy export policy.json --format systemd > /etc/systemd/system/redis.service.d/whittle.conf`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeWorkloads(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			sel, err := selection(phases, lane)
			if err != nil {
				return err
			}
			p, err := a.whole(cmd, args[0])
			if err != nil {
				return err
			}
			if supervised {
				return a.exportSupervised(cmd.Context(), p, args[0], format)
			}
			text, print, err := export(p, sel, format, name)
			if err != nil {
				return err
			}
			a.warnExport(p, sel)
			if format != "systemd" && !startsContainers(p) {
				a.say("note: this was learned without a container runtime, and runc and crun need more calls to start a container; " +
					"learn from a container for that (whittle agent)")
			}
			if !isFile(args[0]) {
				a.recordExport(cmd.Context(), api.Export{Workload: p.Workload.ID(), Fingerprint: print, Format: format})
			}
			_, err = a.out.Write(text)
			return err
		},
	}
	cmd.Flags().StringVarP(&format, "format", "f", "oci", "oci (engines), spo (Kubernetes) or systemd")
	cmd.Flags().StringSliceVar(&phases, "phase", nil, "only these phases (boot, run, reload, stop); default all")
	cmd.Flags().StringVar(&lane, "lane", "", "exec: also what podman exec and health checks need")
	cmd.Flags().BoolVar(&supervised, "supervised", false, "hold what is rare and risky and have the agent answer it: for engines without "+
		"whittle's hook, such as Docker from 23 on (docker run --security-opt seccomp=FILE)")
	cmd.Flags().StringVar(&name, "name", "", "metadata.name of a SeccompProfile; default the workload's")
	return cmd
}

// exportSupervised writes a profile whose held calls the agent answers.
func (a *app) exportSupervised(ctx context.Context, p policy.Policy, ref, format string) error {
	if isFile(ref) || format != "oci" {
		return usageError{hint.Add(errors.New("a supervised profile is an engine's, of a workload that the agent knows"),
			"name a workload of whittle policy list, with --format oci")}
	}
	s, err := a.stored(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	history, err := s.History(ctx, ref)
	if err != nil || len(history) == 0 {
		return errors.Join(err, fmt.Errorf("%s has no history", ref))
	}
	socket, err := a.listenerSocket()
	if err != nil {
		return err
	}
	profile, err := agent.SupervisedProfile(p, history[len(history)-1].Version, socket)
	if err != nil {
		return err
	}
	text, err := filter.MarshalOCI(profile)
	if err != nil {
		return err
	}
	a.warnExport(p, policy.Selection{})
	a.say("note: a container under this profile does not start unless the agent's holder answers at %s", socket)
	_, err = a.out.Write(text)
	return err
}

// export a policy; print is the fingerprint of what an engine would make of it.
func export(p policy.Policy, sel policy.Selection, format, name string) (text []byte, print string, err error) {
	rules, err := filter.FromPolicy(p, sel)
	if err != nil {
		return nil, "", err
	}
	profile, err := filter.OCI(rules)
	if err != nil {
		return nil, "", err
	}
	print = filter.Fingerprint(profile)
	switch format {
	case "oci":
		text, err = filter.MarshalOCI(profile)
	case "spo":
		if name == "" {
			name = objectName(p.Workload.Name())
		}
		text, err = filter.Operator(name, profile)
	case "systemd":
		text, err = filter.Systemd(rules, native)
	default:
		err = usageError{hint.Add(fmt.Errorf("unknown format %q", format), "the formats are oci, spo and systemd")}
	}
	return text, print, err
}

// startsContainers tells whether the policy has the calls of a container runtime: one that was recorded by whittle run needs
// execve at most.
func startsContainers(p policy.Policy) bool {
	for abi, c := range p.ABIs {
		floor := c.Floor
		if nr, ok := syscalls.Number(abi, "execve"); ok {
			floor.Remove(nr)
		}
		if !floor.Empty() {
			return true
		}
	}
	return false
}

// objectName is the nearest name that Kubernetes takes.
func objectName(s string) string {
	return strings.Trim(strings.Map(func(r rune) rune {
		switch {
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '.':
			return r
		}
		return '-'
	}, s), "-.")
}

// warnExport says what the profile leaves out.
func (a *app) warnExport(p policy.Policy, sel policy.Selection) {
	if !p.Complete {
		a.say("note: the policy is partial, so the profile may refuse what the workload needs: %s", oneLine(strings.Join(p.Partial, "; ")))
	}
	if !p.Settled.Settled {
		a.say("%s", strings.TrimSuffix("note: learning has not settled: "+oneLine(p.Settled.Reason), ": "))
	}
	for abi, c := range policy.Normal(p).ABIs {
		if held := slices.Sorted(maps.Keys(c.Quarantined)); len(held) > 0 {
			a.say("note: %s in quarantine, and so not in the profile (%s): whittle policy explain says why",
				count(len(held), "call"), words(syscalls.SetOf(held...).Names(abi)))
		}
	}
	a.warnPhases(p, sel)
	if sel.Exec {
		return
	}
	for abi, c := range p.ABIs {
		if missing := c.Exec.Minus(policy.AllowedSet(p, sel, abi)); !missing.Empty() {
			a.say("note: exec or a health check was seen to need %s (%s); --lane exec includes them",
				count(missing.Len(), "more call"), words(missing.Names(abi)))
		}
	}
}

// warnPhases says which phases a selection of some of them starves: an engine loads a profile once, for a container's whole life.
func (a *app) warnPhases(p policy.Policy, sel policy.Selection) {
	if len(sel.Phases) == 0 {
		return
	}
	for _, phase := range policy.Phases {
		missing := 0
		for abi := range p.ABIs {
			with := policy.Selection{Phases: append(slices.Clone(sel.Phases), phase), Exec: sel.Exec}
			missing += policy.AllowedSet(p, with, abi).Minus(policy.AllowedSet(p, sel, abi)).Len()
		}
		if missing > 0 {
			a.say("note: the phase %s was seen to need %s, which this profile refuses", phase, count(missing, "more call"))
		}
	}
}

// recordExport lets the agent know its own profile again. Where that fails the profile is no less good.
func (a *app) recordExport(ctx context.Context, e api.Export) {
	s, err := a.stored(ctx)
	if err == nil {
		defer s.Close()
		err = s.RecordExport(ctx, e)
	}
	if err != nil {
		a.say("note: containers under this profile will be learned from instead of watched for refusals: %v", err)
	}
}
