// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/judge"
)

func newEventShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use:               "show ID",
		Short:             "everything about one event; of a judged call, the votes and what would have changed the verdict",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := parseID(args[0])
			if err != nil {
				return err
			}
			s, err := a.stored(cmd.Context())
			if err != nil {
				return err
			}
			defer s.Close()
			e, err := api.FindEvent(cmd.Context(), s, id)
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(e)
			}
			return showEvent(a.out, e)
		},
	}
}

func showEvent(out io.Writer, e api.Event) error {
	var page strings.Builder
	for _, line := range []struct{ name, value string }{
		{"event", fmt.Sprint(e.ID)},
		{"time", e.Time.Local().Format(time.RFC3339Nano)},
		{"kind", oneLine(e.Kind)},
		{"workload", oneLine(e.Workload)},
		{"container", oneLine(e.Container)},
		{"call", oneLine(e.Call)},
		{"text", oneLine(e.Text)},
	} {
		if line.value != "" {
			fmt.Fprintf(&page, "%-9s  %s\n", line.name, line.value)
		}
	}
	for _, line := range eventData(e) {
		page.WriteString(line + "\n")
	}
	_, err := io.WriteString(out, page.String())
	return err
}

// eventData in words where there are words for it, else as it is stored.
func eventData(e api.Event) (lines []string) {
	if len(e.Data) == 0 {
		return nil
	}
	if c, ok := caseOf(e); ok {
		lines = append(lines, "")
		for _, line := range c.Explain() {
			lines = append(lines, legible(line))
		}
		return lines
	}
	if loop, ok := loopEvent(e); ok {
		return loop
	}
	var pretty bytes.Buffer
	if json.Indent(&pretty, e.Data, "", "  ") != nil {
		return []string{"data       " + legible(string(e.Data))}
	}
	lines = append(lines, "data")
	for line := range strings.Lines(pretty.String()) {
		lines = append(lines, "  "+legible(strings.TrimSuffix(line, "\n")))
	}
	return lines
}

// caseOf an event that tells of a judged call.
func caseOf(e api.Event) (c judge.Case, ok bool) {
	if e.Kind != judge.KindJudged {
		return c, false
	}
	cases, err := judge.ReadCases(bytes.NewReader(e.Data))
	if err != nil || len(cases) != 1 {
		return c, false
	}
	return cases[0], true
}

// kindLoop events tell of a time loop.
const kindLoop = "loop"

// recordOf a loop that an event tells of.
func recordOf(e api.Event) (r api.LoopRecord, ok bool) {
	dec := json.NewDecoder(bytes.NewReader(e.Data))
	return r, dec.Decode(&r) == nil && r.ID != 0
}
