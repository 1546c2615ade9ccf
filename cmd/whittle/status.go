// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/hint"
	"github.com/whittle-sec/whittle/internal/policy"
)

func newStatus(a *app) *cobra.Command {
	var watch bool
	cmd := &cobra.Command{
		Use:               "status [WORKLOAD|CONTAINER]",
		Short:             "what the agent does with each container",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.completeWorkloads(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client := api.NewClient(a.socket)
			defer client.Close()
			one := ""
			if len(args) == 1 {
				one = args[0]
			}
			if watch {
				return a.watchStatus(cmd.Context(), client, one)
			}
			s, err := statusOf(cmd.Context(), client, one)
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(s)
			}
			return a.printStatus(a.out, s)
		},
	}
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "keep watching until interrupted")
	return cmd
}

// statusOf all containers, or of those that a name or id matches.
func statusOf(ctx context.Context, client *api.Client, one string) (statusPage, error) {
	s, err := client.Status(ctx)
	if err != nil {
		return statusPage{}, err
	}
	if one == "" {
		return pageOf(ctx, client, s)
	}
	var match []api.Container
	for _, c := range s.Containers {
		if isCalled(c, one) {
			match = append(match, c)
		}
	}
	if len(match) == 0 {
		return statusPage{}, hint.Add(fmt.Errorf("no running container or workload is called %q", oneLine(one)),
			"whittle status shows those that run, whittle policy list those that were learned")
	}
	s.Containers = match
	return pageOf(ctx, client, s)
}

// isCalled tells whether a container's name, or the beginning of an ID or of its workload's name, is this.
func isCalled(c api.Container, one string) bool {
	return one != "" && (c.Name == one || strings.HasPrefix(c.WorkloadName, one) || strings.HasPrefix(c.WorkloadID, one) ||
		strings.HasPrefix(c.ID, one))
}

// watchStatus redraws on a terminal. In a pipe it prints a line whenever a container's changes.
func (a *app) watchStatus(ctx context.Context, client *api.Client, one string) error {
	ctx, cancel := untilSignal(ctx)
	defer cancel()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	draw, lines := a.redraw, map[string]string{}
	if !isTerminal(a.out) {
		draw = func(s statusPage) error { return printChanges(a.out, s.Status, lines) }
	}
	for {
		s, err := statusOf(ctx, client, one)
		if ctx.Err() != nil {
			return nil
		}
		if err == nil && a.json {
			err = a.printJSON(s)
		} else if err == nil {
			err = draw(s)
		}
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (a *app) redraw(s statusPage) error {
	var page bytes.Buffer
	page.WriteString("\x1b[H\x1b[J") // home, clear to the end
	if err := a.printStatus(&page, s); err != nil {
		return err
	}
	_, err := a.out.Write(page.Bytes())
	return err
}

func printChanges(w io.Writer, s api.Status, shown map[string]string) error {
	for _, c := range s.Containers {
		line := strings.Join(statusRow(c), "  ")
		if shown[c.ID] == line {
			continue
		}
		shown[c.ID] = line
		if _, err := fmt.Fprintln(w, line); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) printStatus(out io.Writer, s statusPage) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintf(w, "agent %s, pid %d, up %s", s.Version, s.PID, time.Since(s.Started).Round(time.Second))
	if len(s.Engines) > 0 {
		fmt.Fprintf(w, ", %s", strings.Join(s.Engines, ", "))
	}
	fmt.Fprintln(w)
	for _, p := range append(deviations(s.Containers), s.Problems...) {
		fmt.Fprintf(w, "problem: %s\n", oneLine(p))
	}
	a.printDecisions(w, s)
	if len(s.Containers) == 0 {
		fmt.Fprintln(w, "no containers")
		return w.Flush()
	}
	fmt.Fprintln(w, "\nCONTAINER\tWORKLOAD\tMODE\tPHASE\tCALLS\tP(NEW) BURST/EPOCH\tREFUSED\tNOTE")
	for _, c := range s.Containers {
		row := statusRow(c)
		if s := c.Supervision; s != nil && s.Listeners > 0 {
			row[phaseColumn] += " " + age(time.Since(s.PhaseSince))
		}
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if one := s.Containers[0]; len(s.Containers) == 1 && one.Note != "" {
		if _, err := fmt.Fprintf(out, "\n%s: %s\n", one.Name, oneLine(one.Note)); err != nil {
			return err
		}
	}
	if err := printSupervised(out, s.Containers); err != nil {
		return err
	}
	return a.printRefused(out, s.Containers)
}

// phaseColumn of a statusRow. Its age is added when the page is printed: a row is compared with the one before.
const phaseColumn = 3

func statusRow(c api.Container) []string {
	calls, unseen, phase := "-", "-", "-"
	if c.Mode != api.Enforced && c.Mode != api.Unseen {
		phase, calls = c.Phase.String(), fmt.Sprint(c.Distinct)
		if c.Settled.Bursts > 0 {
			unseen = fmt.Sprintf("%.1g / %.1g", c.Settled.PUnseen, c.Settled.PUnseenEpoch)
		}
		for _, p := range policy.Phases {
			if n := c.ByPhase[p.String()]; n > 0 {
				calls += fmt.Sprintf(" %s:%d", p, n)
			}
		}
	}
	var refused uint64
	for _, r := range c.Refused {
		refused += r.Count
	}
	denied := fmt.Sprint(refused)
	if s := c.Supervision; s != nil {
		phase = s.Phase.String()
		denied = fmt.Sprint(refused + s.Denied)
		if s.Mode == api.ModeShadow {
			denied += fmt.Sprintf(" (would: %d)", s.WouldDeny)
		}
		if s.Listeners > 0 {
			calls = fmt.Sprintf("%d open, %d held", s.Open, s.Held)
		}
	}
	note, _, more := strings.Cut(oneLine(c.Note), ", ")
	if more {
		note += " …" // printStatus has it whole when it is asked about one container
	}
	if c.Late && c.Mode == api.Enforced {
		note = strings.TrimPrefix(note+"; what was refused before the agent ran is unknown", "; ")
	} else if c.Late {
		note = strings.TrimPrefix(note+"; partial: it ran before the agent did", "; ")
	}
	return []string{oneLine(c.Name), oneLine(c.WorkloadName), modeOf(c), phase, calls, unseen, denied, note}
}
