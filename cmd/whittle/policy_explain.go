// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/hint"
	"github.com/whittle-sec/whittle/internal/judge"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

func newPolicyExplain(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "explain WORKLOAD|FILE CALL",
		Short: "why a call is allowed or not, in plain words",
		Long: `Say why a call is allowed or not, and, of a workload, what the panel of judges made of it when it was held. CALL is a name,
or ABI:NAME for another ABI than the host's (i386:writev).`,
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
			e := explained{Explanation: policy.Explain(p, call)}
			if !isFile(args[0]) {
				if e.Judged, err = a.judgedOf(cmd.Context(), p.Workload.ID(), call); err != nil {
					return err
				}
			}
			if a.json {
				return a.printJSON(e)
			}
			_, err = fmt.Fprintln(a.out, e.Explanation)
			if err == nil {
				err = a.printJudgedOf(e.Judged)
			}
			return err
		},
	}
}

// explained is why a call is allowed or not, with what the panel made of it when it was held.
type explained struct {
	policy.Explanation
	Judged []judged `json:"judged,omitempty"` // the newest first
}

// judged call in the journal.
type judged struct {
	Event   int64         `json:"event"`
	Time    time.Time     `json:"time"`
	Verdict judge.Verdict `json:"verdict"`
	Why     string        `json:"why"`
}

const (
	// manyJudged events are looked through for a call, the newest ones of its workload.
	manyJudged = 10_000
	// fewJudged are printed.
	fewJudged = 5
)

func (a *app) judgedOf(ctx context.Context, workload string, call syscalls.Call) (all []judged, err error) {
	s, err := a.stored(ctx)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	events, err := s.Events(ctx, api.EventQuery{Workload: workload, Kind: judge.KindJudged, Limit: manyJudged})
	if err != nil {
		return nil, fmt.Errorf("read how the call was judged: %w", err)
	}
	for _, e := range slices.Backward(events) {
		if c, ok := caseOf(e); ok && c.Question.Call == call {
			all = append(all, judged{e.ID, e.Time, c.Decision.Verdict, c.Decision.Why})
		}
	}
	return all, nil
}

func (a *app) printJudgedOf(all []judged) error {
	if len(all) == 0 {
		return nil
	}
	lines := []string{"Judged when it was held, with what was known then:"}
	for _, j := range all[:min(len(all), fewJudged)] {
		lines = append(lines, fmt.Sprintf("  %s  %s: %s", at(j.Time), verdictWord(j.Verdict), legible(j.Why)),
			"    "+a.command(fmt.Sprintf("event show %d", j.Event)))
	}
	if more := len(all) - fewJudged; more > 0 {
		lines = append(lines, fmt.Sprintf("  and %s before", count(more, "time")))
	}
	_, err := fmt.Fprintln(a.out, strings.Join(lines, "\n"))
	return err
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
