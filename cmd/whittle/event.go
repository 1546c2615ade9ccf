// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/whittle-sec/whittle/internal/agent"
	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/hint"
	"github.com/whittle-sec/whittle/internal/judge"
	"github.com/whittle-sec/whittle/internal/workload"
)

func newEvent(a *app) *cobra.Command {
	return group("event", "the journal: what was learned, decided and refused", newEventList(a), newEventShow(a), newEventFollow(a))
}

func newEventList(a *app) *cobra.Command {
	var q api.EventQuery
	cmd := &cobra.Command{
		Use:               "list [WORKLOAD]",
		Short:             "print the latest events, oldest first",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.completeWorkloads(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if q.Kind != "" && !slices.Contains(agent.Kinds, q.Kind) {
				return usageError{hint.Add(fmt.Errorf("unknown kind %q", q.Kind), "the kinds are "+strings.Join(agent.Kinds, ", "))}
			}
			if q.Limit < 1 {
				return usageError{fmt.Errorf("--limit %d: at least one event", q.Limit)}
			}
			s, err := a.stored(cmd.Context())
			if err != nil {
				return err
			}
			defer s.Close()
			if len(args) == 1 {
				p, err := s.Policy(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				q.Workload = p.Workload.ID()
			}
			events, err := s.Events(cmd.Context(), q)
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(append([]api.Event{}, events...))
			}
			for _, e := range events {
				if err := printEvent(a.out, e); err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.Flags().IntVarP(&q.Limit, "limit", "n", 100, "how many")
	cmd.Flags().StringVar(&q.Kind, "kind", "", "only events of this `KIND`: refused, settled, start, stop …")
	return cmd
}

func newEventFollow(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "follow",
		Short: "print events as they happen, until interrupted; with --json one object a line",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := untilSignal(cmd.Context())
			defer cancel()
			client := api.NewClient(a.socket)
			defer client.Close()
			last, err := client.Events(ctx, api.EventQuery{Limit: 1})
			if err != nil {
				return err
			}
			var after int64
			if len(last) == 1 {
				after = last[0].ID
			}
			err = client.Follow(ctx, after, func(e api.Event) error {
				if a.json {
					return json.NewEncoder(a.out).Encode(e)
				}
				return printEvent(a.out, e)
			})
			if errors.Is(err, context.Canceled) {
				return nil
			}
			if err == nil {
				a.say("the agent stopped, and these were its last events; start it again with: sudo %s", a.command("agent"))
			}
			return err
		},
	}
}

// printEvent on one line. Its text holds names that containers chose. Of a judged call there is more to be seen.
func printEvent(w io.Writer, e api.Event) error {
	text := oneLine(e.Text)
	if e.Kind == judge.KindJudged {
		text += fmt.Sprintf(" (whittle event show %d)", e.ID)
	}
	_, err := fmt.Fprintf(w, "%s  %-9s  %s\n", e.Time.Local().Format(time.DateTime), e.Kind, text)
	return err
}

// oneLine is text without control characters.
func oneLine(s string) string { return workload.Printable(s, 2000) }
