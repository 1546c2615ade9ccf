// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/whittle-sec/whittle/internal/plan"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

func newPolicyShow(a *app) *cobra.Command {
	var long bool
	cmd := &cobra.Command{
		Use:   "show WORKLOAD|FILE",
		Short: "the calls of each phase, the account, and what it is worth",
		Long: `Show the calls of each phase side by side, the account, what each phase takes away from a supervised container, and which
calls the kernel lets through there (open), which are asked about each time (held), and which are refused at once (shut).
With --plan, the reason for each call. With --json alone, the policy as a file; with both, the plan.`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeWorkloads(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := a.whole(cmd, args[0])
			if err != nil {
				return err
			}
			switch {
			case a.json && long:
				return a.printJSON(plannedOf(p, plan.Make(p, plan.Default())))
			case a.json:
				return a.printJSON(p)
			}
			return showPolicy(a.out, p, long)
		},
	}
	cmd.Flags().BoolVar(&long, "plan", false, "say of each call whether it is open, held or shut, and why")
	return cmd
}

func showPolicy(out io.Writer, p policy.Policy, long bool) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintf(w, "workload\t%s (%s)\n", p.Workload.Name(), p.Workload.ID())
	fmt.Fprintf(w, "image\t%s %s\n", oneLine(p.Workload.Image), oneLine(p.Workload.Digest))
	fmt.Fprintf(w, "command\t%s\n", oneLine(strings.Join(p.Workload.Command, " ")))
	showAccount(w, p)
	w.Flush()
	for _, abi := range slices.Sorted(maps.Keys(p.ABIs)) {
		fmt.Fprintf(w, "\n%s\n", abi)
		showCalls(w, abi, p.ABIs[abi])
		showQuarantined(w, p, abi)
	}
	fmt.Fprintln(w)
	if err := showCVEs(w, p); err != nil {
		return err
	}
	if err := w.Flush(); err != nil || len(p.ABIs) == 0 {
		return err
	}
	p = policy.Normal(p)
	pl := plan.Make(p, plan.Default())
	fmt.Fprintln(out)
	showColumns(out, pl)
	fmt.Fprintln(out)
	showRoles(out, p, pl)
	showPlan(out, p, pl, long)
	return nil
}

// showAccount says everything that makes the policy trustworthy or not.
func showAccount(w io.Writer, p policy.Policy) {
	state := "complete: nothing that was observed was lost"
	if !p.Complete {
		state = "PARTIAL: calls may be missing"
	}
	fmt.Fprintf(w, "state\t%s\n", state)
	for _, why := range p.Partial {
		fmt.Fprintf(w, "\t- %s\n", oneLine(why))
	}
	fmt.Fprintf(w, "observed\t%s, %d of them in part; %s made, %d read\n",
		count(p.Account.Runs, "container"), p.Account.LateRuns, count(p.Account.Recorded, "record"), p.Account.Drained)
	if p.Account.IOUring {
		fmt.Fprintf(w, "\tit uses io_uring, whose operations no filter sees\n")
	}
	settled := "no"
	if p.Settled.Settled {
		settled = "yes"
	}
	fmt.Fprintf(w, "settled\t%s: an unseen call is in the next burst with p ≤ %.2g, the next epoch with p ≤ %.2g\n",
		settled, p.Settled.PUnseen, p.Settled.PUnseenEpoch)
	fmt.Fprintf(w, "\t(%s, %s)\n", count(p.Settled.Bursts, "burst"), count(p.Settled.Epochs, "epoch"))
	if p.Settled.Reason == "" {
		return
	}
	for _, line := range fold(strings.Fields(oneLine(p.Settled.Reason)), " ", width-10) {
		fmt.Fprintf(w, "\t%s\n", line)
	}
}

// showCalls is a row for each call and a column for each phase.
func showCalls(w *tabwriter.Writer, abi syscalls.ABI, c *policy.Calls) {
	fmt.Fprint(w, "CALL")
	var all syscalls.Set
	for _, phase := range policy.Phases {
		fmt.Fprintf(w, "\t%s %d", strings.ToUpper(phase.String()), c.Phases[phase].Len())
		all = all.Union(c.Phases[phase])
	}
	fmt.Fprintln(w, "\tSEEN\tFIRST\tBY")
	for _, name := range all.Names(abi) {
		nr, _ := syscalls.Number(abi, name)
		fmt.Fprint(w, name)
		for _, phase := range policy.Phases {
			mark := "·"
			if c.Phases[phase].Has(nr) {
				mark = phase.String()
			}
			fmt.Fprintf(w, "\t%s", mark)
		}
		e := c.Evidence[nr]
		fmt.Fprintf(w, "\t%d\t%s\t%s\n", e.Count, brief(e.FirstSeen), ending(oneLine(firstOf(e.Roles)), 26))
	}
	w.Flush()
	lane := func(name string, s syscalls.Set) {
		if !s.Empty() {
			fmt.Fprintf(w, "%s %d\t%s\n", name, s.Len(), words(s.Names(abi)))
		}
	}
	lane("floor", c.Floor)
	lane("exec lane", c.Exec)
	var denied syscalls.Set
	for nr := range c.Denied {
		if nr < syscalls.MaxNr {
			denied.Add(nr)
		}
	}
	lane("denied", denied)
	w.Flush()
}

// showQuarantined is what learning saw and does not trust, with what a person can do about it.
func showQuarantined(w *tabwriter.Writer, p policy.Policy, abi syscalls.ABI) {
	held := policy.Normal(p).ABIs[abi].Quarantined
	if len(held) == 0 {
		return
	}
	fmt.Fprintln(w, "QUARANTINED\tWHY IT IS NOT TRUSTED\tTO ALLOW IT")
	for _, nr := range slices.Sorted(maps.Keys(held)) {
		call := abiName(syscalls.Call{ABI: abi, Nr: nr})
		for _, line := range fold(strings.Fields(oneLine(held[nr])), " ", 46) {
			fix := ""
			if call != "" {
				// By its ID: the name of an image is no word for a shell.
				fix = "whittle policy allow " + p.Workload.ID() + " " + shellWord(call)
			}
			fmt.Fprintf(w, "%s\t%s\t%s\n", call, line, fix)
			call = ""
		}
	}
	w.Flush()
}

func brief(d time.Duration) string { return d.Round(10 * time.Millisecond).String() }

// ending of a text that is longer than there is room for: of a path, what tells it from others.
func ending(s string, room int) string {
	letters := []rune(s)
	if len(letters) <= room {
		return s
	}
	return "…" + string(letters[len(letters)-room+1:])
}

func firstOf(list []string) string {
	switch len(list) {
	case 0:
		return ""
	case 1:
		return list[0]
	}
	return fmt.Sprintf("%s +%d", list[0], len(list)-1)
}

// showCVEs per phase, beside the engine's default.
func showCVEs(w io.Writer, p policy.Policy) error {
	if len(p.ABIs) == 0 {
		return nil
	}
	fmt.Fprintln(w, "AS A STATIC PROFILE, arguments not weighed")
	for i, phase := range append(slices.Clone(policy.Phases[:]), policy.Boot) {
		sel, name := policy.Selection{Phases: []policy.Phase{phase}}, phase.String()
		if i == len(policy.Phases) {
			sel, name = policy.Selection{}, "all phases"
		} else if !hasPhase(p, phase) {
			continue
		}
		profile, err := profileFor(p, sel)
		if err != nil {
			return err
		}
		s, err := scoreOf(profile)
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "%s\t%d calls with the floor (engine's default %d)\t%d CVEs neutralised (default %d)\n",
			name, s.Allowed, s.DefaultAllowed, len(s.Neutralised), s.DefaultNeutralised)
	}
	return nil
}

func hasPhase(p policy.Policy, phase policy.Phase) bool {
	for _, c := range p.ABIs {
		if !c.Phases[phase].Empty() {
			return true
		}
	}
	return false
}

// whole policy, as it is exported and enforced: with the floor that was measured of the workload's runtimes.
func (a *app) whole(cmd *cobra.Command, ref string) (policy.Policy, error) {
	p, err := a.versioned(cmd, ref)
	if err != nil || isFile(ref) {
		return p, err
	}
	ref, _, _ = strings.Cut(ref, "@")
	return a.floorOf(cmd.Context(), ref, p)
}

// floorOf adds what was measured of the runtime to a policy's own floor.
func (a *app) floorOf(ctx context.Context, ref string, p policy.Policy) (policy.Policy, error) {
	s, err := a.stored(ctx)
	if err != nil {
		return p, err
	}
	defer s.Close()
	floor, err := s.Floor(ctx, ref)
	if err != nil {
		return p, err
	}
	p = policy.Normal(p)
	for abi, calls := range p.ABIs {
		for _, name := range floor[abi.String()] {
			nr, ok := syscalls.Number(abi, name)
			if !ok || nr >= syscalls.MaxNr {
				continue
			}
			calls.Floor.Add(nr)
			if _, ok := calls.Evidence[nr]; !ok {
				calls.Evidence[nr] = policy.Evidence{Source: "floor"}
			}
		}
	}
	return p, nil
}
