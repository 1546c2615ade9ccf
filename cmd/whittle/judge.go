// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"
	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/hint"
	"github.com/whittle-sec/whittle/internal/judge"
)

func newJudge(a *app) *cobra.Command {
	return group("judge", "held calls that wait for your word, and what the panel made of earlier ones",
		newJudgeList(a), newJudgeAnswer(a, true), newJudgeAnswer(a, false), newJudgeReplay(a))
}

func newJudgeList(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "the calls that wait for your word, the oldest first",
		Long: `List the held calls about which the panel of judges asks a person: who makes each, why the panel does not decide it, and
how long is left. One that nobody answers is refused then. whittle event show says everything about one that was decided.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client := api.NewClient(a.socket)
			defer client.Close()
			all, err := client.Waiting(cmd.Context())
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(append([]api.Waiting{}, all...))
			}
			if len(all) == 0 {
				a.say("no call waits for your word")
				return nil
			}
			return a.printWaiting(all, time.Now())
		},
	}
}

func (a *app) printWaiting(all []api.Waiting, now time.Time) error {
	lines := []tableLine{{row: []string{"ID", "CONTAINER", "CALL", "BY", "PHASE", "THREADS", "WAITS", "LEFT"}}}
	for _, w := range all {
		q := w.Case.Question
		lines = append(lines, tableLine{
			row: []string{
				strconv.FormatInt(w.ID, 10), oneLine(w.Name), abiName(q.Call), asker(w.Comm, w.PID), q.Phase.String(),
				strconv.Itoa(w.Count), age(now.Sub(w.Since)), age(w.Until.Sub(now)),
			},
			below: []string{
				"why: " + legible(w.Case.Decision.Why),
				fmt.Sprintf("to answer: sudo %s, or deny; with --always for good", a.command(fmt.Sprintf("judge allow %d", w.ID))),
			},
		})
	}
	_, err := io.WriteString(a.out, table(lines))
	return err
}

// newJudgeAnswer is judge allow, and judge deny.
func newJudgeAnswer(a *app, allow bool) *cobra.Command {
	j := api.Judgement{Allow: allow}
	verb, short, always := "deny", "refuse a call that waits", "take the call out of the workload's policy, for good"
	if allow {
		verb, short, always = "allow", "let a call that waits go on", "add the call to the workload's policy"
	}
	cmd := &cobra.Command{
		Use:   verb + " ID",
		Short: short,
		Long: fmt.Sprintf(`%s, for every thread that waits with the same question. The next time it is judged anew, unless --always
is given, which does to the policy what whittle policy %s does. Your name and --why are kept.`, sentence(short), verb),
		Example:           fmt.Sprintf("  sudo whittle judge %s 7 --why backup", verb),
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeWaiting,
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := parseID(args[0])
			if err != nil {
				return err
			}
			j.ID, j.By = id, invoker()
			client := api.NewClient(a.socket)
			defer client.Close()
			done, err := client.Settle(cmd.Context(), j)
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(done)
			}
			return a.printJudged(j, done)
		},
	}
	cmd.Flags().BoolVar(&j.Always, "always", false, always)
	cmd.Flags().StringVar(&j.Why, "why", "", "`TEXT` for the history")
	return cmd
}

func (a *app) printJudged(j api.Judgement, done api.Judged) error {
	word := "refused"
	if j.Allow {
		word = "let through"
	}
	w := done.Waiting
	name := abiName(w.Case.Question.Call)
	text := fmt.Sprintf("%s: %s of %s is %s", oneLine(w.Name), name, asker(w.Comm, w.PID), word)
	switch {
	case done.Answered == 0:
		text = fmt.Sprintf("%s: nobody waits with %s any more", oneLine(w.Name), name)
	case done.Answered > 1:
		text += fmt.Sprintf(", in %d threads", done.Answered)
	}
	if _, err := fmt.Fprintln(a.out, text); err != nil {
		return err
	}
	if done.Grant != nil {
		if err := a.printGrant(api.GrantRequest{Call: name, Allow: j.Allow}, *done.Grant); err != nil {
			return err
		}
	}
	for _, n := range done.Notes {
		a.say("note: %s", oneLine(n))
	}
	return nil
}

func parseID(text string) (int64, error) {
	id, err := strconv.ParseInt(text, 10, 64)
	if err != nil || id <= 0 {
		return 0, usageError{hint.Add(fmt.Errorf("%q is no ID", oneLine(text)), "an ID is a number, as the lists show it")}
	}
	return id, nil
}

// completeWaiting IDs, each with what waits.
func (a *app) completeWaiting(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(context.Background(), completionPatience)
	defer cancel()
	client := api.NewClient(a.socket)
	defer client.Close()
	all, err := client.Waiting(ctx)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var ids []cobra.Completion
	for _, w := range all {
		ids = append(ids, cobra.CompletionWithDesc(strconv.FormatInt(w.ID, 10), abiName(w.Case.Question.Call)+" in "+oneLine(w.Name)))
	}
	return ids, cobra.ShellCompDirectiveNoFileComp
}

// verdictWord is what a verdict means to a person.
func verdictWord(v judge.Verdict) string {
	switch v {
	case judge.Ask:
		return "ask a person"
	case judge.Once:
		return "allow once"
	case judge.Learn:
		return "allow and learn"
	}
	return v.String()
}

// legible is text of Whittle's own that may quote what a container or a file chose: without what moves the cursor.
func legible(s string) string {
	const limit = 2000
	n := 0
	return strings.Map(func(r rune) rune {
		switch n++; {
		case n > limit:
			return -1
		case r == unicode.ReplacementChar, !unicode.IsPrint(r):
			return '?'
		}
		return r
	}, s)
}

// sentence from a short text.
func sentence(s string) string { return strings.ToUpper(s[:1]) + s[1:] }
