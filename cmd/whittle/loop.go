// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/whittle-sec/whittle/internal/api"
)

func newLoop(a *app) *cobra.Command {
	return group("loop", "time loops: when a workload's oracle took production's place, and what came of it", newLoopStatus(a), newLoopHistory(a))
}

func newLoopStatus(a *app) *cobra.Command {
	var watch bool
	cmd := &cobra.Command{
		Use:   "status [WORKLOAD|CONTAINER]",
		Short: "who serves now, production or oracle, and what happens next",
		Long: `Show of each workload that has an oracle whether production or the oracle serves, why, what was learned in this loop, what
happens next, and which calls begin no loop for now.`,
		Example:           `  whittle loop status --watch`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.completeOracles,
		RunE: func(cmd *cobra.Command, args []string) error {
			client := api.NewClient(a.socket)
			defer client.Close()
			ref := strings.Join(args, "")
			if watch {
				return a.watchLoops(cmd.Context(), client, ref)
			}
			all, err := client.Loops(cmd.Context(), ref)
			if err != nil {
				return whatHasOracles(err)
			}
			if a.json {
				return a.printJSON(append([]api.LoopState{}, all...))
			}
			if len(all) == 0 {
				a.say("no workload has an oracle: sudo %s", a.command("oracle set WORKLOAD --image IMAGE"))
				return nil
			}
			_, err = io.WriteString(a.out, loopTable(all, time.Now()))
			return err
		},
	}
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "keep watching until interrupted")
	return cmd
}

// watchLoops redraws on a terminal. In a pipe it prints a line whenever a workload's changes.
func (a *app) watchLoops(ctx context.Context, client *api.Client, ref string) error {
	ctx, cancel := untilSignal(ctx)
	defer cancel()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	shown := map[string]string{}
	for {
		all, err := client.Loops(ctx, ref)
		if ctx.Err() != nil {
			return nil
		}
		switch {
		case err != nil:
			err = whatHasOracles(err)
		case a.json:
			err = a.printJSON(append([]api.LoopState{}, all...))
		case isTerminal(a.out):
			_, err = io.WriteString(a.out, "\x1b[H\x1b[J"+loopTable(all, time.Now())) // home, clear to the end
		default:
			err = printLoopChanges(a.out, all, shown)
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

func printLoopChanges(w io.Writer, all []api.LoopState, shown map[string]string) error {
	for _, l := range all {
		line := strings.Join(loopRow(l, l.Since), "  ") // without an age, which always changes
		if shown[l.Workload] == line {
			continue
		}
		shown[l.Workload] = line
		if _, err := fmt.Fprintln(w, line); err != nil {
			return err
		}
	}
	return nil
}

func loopTable(all []api.LoopState, now time.Time) string {
	lines := []tableLine{{row: []string{"WORKLOAD", "STATE", "FOR", "SERVES", "CAUSE", "LOOPS", "THIS HOUR", "LEARNED"}}}
	for _, l := range all {
		lines = append(lines, tableLine{row: loopRow(l, now), below: loopNotes(l)})
	}
	return table(lines)
}

func loopRow(l api.LoopState, now time.Time) []string {
	since := "-"
	if !l.Since.IsZero() && !now.Equal(l.Since) {
		since = age(now.Sub(l.Since))
	}
	serves := l.Container
	if l.Oracle != "" {
		serves = l.Oracle
	}
	cause := "-"
	if l.Cause != "" {
		cause = oneLine(l.Cause)
	}
	hour := fmt.Sprintf("%d of %d", l.HourLoops, l.Limits.PerHour)
	if !l.Converged {
		hour = fmt.Sprintf("%d, converging", l.HourLoops)
	}
	return []string{oneLine(l.Name), oneLine(string(l.State)), since, orDash(oneLine(serves)), cause, fmt.Sprint(l.Loops), hour, fmt.Sprint(l.Learned)}
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// loopNotes are what does not fit into columns.
func loopNotes(l api.LoopState) (notes []string) {
	note := func(name, text string) {
		if text != "" {
			notes = append(notes, name+": "+text)
		}
	}
	note("next", oneLine(l.Next))
	note("learned", oneLine(strings.Join(l.Calls, ", ")))
	note("not sure yet", oneLine(strings.Join(l.Waiting, ", ")))
	if !l.NotBefore.IsZero() {
		note("no loop before "+l.NotBefore.Local().Format(time.TimeOnly), oneLine(l.Why))
	}
	for _, t := range l.Tried {
		text := fmt.Sprintf("%s begins no loop before %s", oneLine(t.Call), t.Until.Local().Format(time.DateTime))
		if t.Why != "" {
			text += ": " + oneLine(t.Why)
		}
		note("tried", text)
	}
	for _, p := range l.Problems {
		note("problem", oneLine(p))
	}
	return notes
}

func newLoopHistory(a *app) *cobra.Command {
	var limit int
	var reports bool
	cmd := &cobra.Command{
		Use:   "history [WORKLOAD]",
		Short: "the loops that were: cause, duration, what was learned, verdict",
		Long: `List the latest loops, oldest first. The verdicts:

  learned   what production asked for, and what else the oracle reached without aborting, is in the policy
  attack    the oracle aborted: nothing of what led to it is learned, and its report is kept (--report prints it)
  quiet     nobody made the call again in time; it stays refused
  failed    the oracle did not serve`,
		Example:           `  whittle loop history web-2b3c --report`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.completeOracles,
		RunE: func(cmd *cobra.Command, args []string) error {
			if limit < 1 || limit > api.MaxLoops {
				return usageError{fmt.Errorf("--limit %d: from 1 to %d loops", limit, api.MaxLoops)}
			}
			client := api.NewClient(a.socket)
			defer client.Close()
			all, err := client.LoopHistory(cmd.Context(), strings.Join(args, ""), limit)
			if err != nil {
				return whatHasOracles(err)
			}
			if a.json {
				return a.printJSON(append([]api.LoopRecord{}, all...))
			}
			if len(all) == 0 {
				a.say("there was no loop yet")
				return nil
			}
			_, err = io.WriteString(a.out, historyTable(all, reports))
			return err
		},
	}
	cmd.Flags().IntVarP(&limit, "limit", "n", 50, "how many")
	cmd.Flags().BoolVar(&reports, "report", false, "print the oracles' reports, too")
	return cmd
}

func historyTable(all []api.LoopRecord, reports bool) string {
	lines := []tableLine{{row: []string{"ID", "WORKLOAD", "BEGAN", "TOOK", "CAUSE", "LEARNED", "VERDICT"}}}
	for _, r := range all {
		verdict := oneLine(string(r.Verdict))
		if verdict == "" {
			verdict = oneLine(string(r.State))
		}
		lines = append(lines, tableLine{
			row: []string{
				fmt.Sprint(r.ID), oneLine(r.Workload), r.Started.Local().Format(time.DateTime), tookText(r), oneLine(r.Cause), fmt.Sprint(len(r.Calls)), verdict,
			},
			below: recordNotes(r, reports),
		})
	}
	return table(lines)
}

// tookText is how long the loop took, from the call to production's return.
func tookText(r api.LoopRecord) string {
	if r.Ended.IsZero() {
		return "goes on"
	}
	return r.Ended.Sub(r.Started).Round(100 * time.Millisecond).String()
}

// recordNotes of one loop. Whatever an oracle printed was written by what attacked it, as likely as not.
func recordNotes(r api.LoopRecord, reports bool) (notes []string) {
	note := func(name, text string) {
		if text != "" {
			notes = append(notes, name+": "+text)
		}
	}
	note("learned", oneLine(strings.Join(r.Calls, ", ")))
	note("not learned, since the oracle aborted", oneLine(strings.Join(r.Dropped, ", ")))
	note("why", oneLine(r.Why))
	note("interrupted", oneLine(r.Lost))
	note("coming back", oneLine(r.Return))
	if r.Report == nil {
		return notes
	}
	text := legible(r.Report.Summary)
	if r.Report.Location != "" {
		text += ", in " + legible(r.Report.Location)
	}
	note(oneLine(r.Report.Kind)+" report", text)
	if reports {
		for line := range strings.Lines(r.Report.Text) {
			notes = append(notes, "  | "+legible(strings.TrimRight(line, "\n")))
		}
	}
	return notes
}

// loopEvent in words: its data is the record of the loop as far as it had come.
func loopEvent(e api.Event) (lines []string, ok bool) {
	if e.Kind != kindLoop {
		return nil, false
	}
	r, ok := recordOf(e)
	if !ok {
		return nil, false
	}
	var page bytes.Buffer
	page.WriteString(historyTable([]api.LoopRecord{r}, true))
	for line := range strings.Lines(page.String()) {
		lines = append(lines, strings.TrimSuffix(line, "\n"))
	}
	return append([]string{""}, lines...), true
}
