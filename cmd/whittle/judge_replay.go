// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/corpus"
	"github.com/whittle-sec/whittle/internal/hint"
	"github.com/whittle-sec/whittle/internal/judge"
	"github.com/whittle-sec/whittle/internal/policy"
)

func newJudgeReplay(a *app) *cobra.Command {
	r := replay{app: a, panels: map[string]*judge.Panel{}}
	cmd := &cobra.Command{
		Use:   "replay FILE",
		Short: "judge recorded cases again, and compare",
		Long: `Judge recorded cases again, by the policies as they are now, and show where the verdict is another one than it was. FILE
is a list of cases, one case a line, or what whittle event list --kind judged --json printed; - is the standard input.
The exit status is 1 when a verdict differs.`,
		Example:           `  whittle judge replay cases.json --policy redis-1f2e@3 --without association`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: cobra.FixedCompletions(nil, cobra.ShellCompDirectiveDefault),
		RunE: func(cmd *cobra.Command, args []string) error {
			results, err := r.run(cmd, args[0])
			if err != nil {
				return err
			}
			if a.json {
				err = a.printJSON(append([]replayed{}, results...))
			} else {
				err = a.printReplay(results)
			}
			if err == nil && slices.ContainsFunc(results, func(r replayed) bool { return r.Differs }) {
				return exitCode(exitError)
			}
			return err
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&r.policy, "policy", "", "`WORKLOAD|FILE` to judge all by, instead of each case's own workload")
	flags.StringSliceVar(&r.without, "without", nil, "leave these `JUDGES` out: "+strings.Join(judge.Names, ", "))
	flags.StringSliceVar(&r.only, "only", nil, "hear these `JUDGES` alone")
	flags.StringVar(&r.corpus, "corpus", "", "`FILE` of recorded services, instead of the one that Whittle comes with")
	return cmd
}

// replay is one run of the command.
type replay struct {
	app           *app
	policy        string
	without, only []string
	corpus        string

	rules  judge.Associations
	panels map[string]*judge.Panel // by workload ID; "" when one policy is for all
}

// replayed case: what was said then, and what is said now.
type replayed struct {
	Case     int            `json:"case"` // in the file, from 1
	Workload string         `json:"workload"`
	ABI      string         `json:"abi"`
	Call     string         `json:"call"`
	Recorded judge.Decision `json:"recorded"`
	Replayed judge.Decision `json:"replayed"`
	Differs  bool           `json:"differs"` // the verdict

	question judge.Question
}

func (r *replay) run(cmd *cobra.Command, path string) ([]replayed, error) {
	if len(r.without) > 0 && len(r.only) > 0 {
		return nil, usageError{errors.New("give --without or --only, not both")}
	}
	for _, name := range slices.Concat(r.without, r.only) {
		if !slices.Contains(judge.Names, name) {
			return nil, usageError{hint.Add(fmt.Errorf("there is no judge %q", oneLine(name)), "the judges are "+strings.Join(judge.Names, ", "))}
		}
	}
	cases, err := r.app.readCases(path)
	if err != nil {
		return nil, err
	}
	if r.rules, err = rulesOf(r.corpus); err != nil {
		return nil, err
	}
	var all []replayed
	for i, c := range cases {
		panel, err := r.panel(cmd, c.Workload)
		if err != nil {
			return nil, fmt.Errorf("case %d: %w", i+1, err)
		}
		d := panel.Decide(c.Question, c.Evidence)
		all = append(all, replayed{
			Case: i + 1, Workload: c.Workload, ABI: c.Question.Call.ABI.String(), Call: c.Question.Call.String(),
			Recorded: c.Decision, Replayed: d, Differs: d.Verdict != c.Decision.Verdict, question: c.Question,
		})
	}
	return all, nil
}

func (a *app) readCases(path string) ([]judge.Case, error) {
	in := a.in
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("open the cases: %w", err)
		}
		defer f.Close()
		in = f
	}
	cases, err := judge.ReadCases(in)
	if err != nil {
		return nil, hint.Add(fmt.Errorf("%s: %w", oneLine(path), err), "whittle event list --kind judged --json > FILE makes one")
	}
	return cases, nil
}

// rulesOf a corpus, or of the one that is shipped.
func rulesOf(path string) (judge.Associations, error) {
	if path == "" {
		c, err := corpus.Shipped()
		if err != nil {
			return nil, err
		}
		return c.Rules(), nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open the corpus: %w", err)
	}
	defer f.Close()
	c, err := corpus.Read(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", oneLine(path), err)
	}
	return c.Rules(), nil
}

// panel for a case's workload. Each policy is read once.
func (r *replay) panel(cmd *cobra.Command, workload string) (*judge.Panel, error) {
	key := workload
	if r.policy != "" {
		key = ""
	}
	if p := r.panels[key]; p != nil {
		return p, nil
	}
	p, err := r.policyOf(cmd.Context(), cmd, workload)
	if err != nil {
		return nil, err
	}
	panel := judge.New(p, r.rules)
	switch {
	case len(r.only) > 0:
		panel = panel.Only(r.only...)
	case len(r.without) > 0:
		panel = panel.Without(r.without...)
	}
	r.panels[key] = panel
	return panel, nil
}

func (r *replay) policyOf(ctx context.Context, cmd *cobra.Command, workload string) (policy.Policy, error) {
	const other = "--policy WORKLOAD|FILE judges all cases by one policy"
	switch {
	case r.policy != "":
		return r.app.whole(cmd, r.policy)
	case workload == "":
		return policy.Policy{}, hint.Add(errors.New("it does not say which workload it is of"), other)
	}
	s, err := r.app.stored(ctx)
	if err != nil {
		return policy.Policy{}, err
	}
	defer s.Close()
	p, err := s.Policy(ctx, workload)
	if errors.Is(err, api.ErrNotFound) {
		return p, hint.Add(err, other)
	}
	if err != nil {
		return p, err
	}
	return r.app.floorOf(ctx, workload, p)
}

// printReplay is a row for each case, and below one that differs what each side says.
func (a *app) printReplay(all []replayed) error {
	lines := []tableLine{{row: []string{"", "CASE", "WORKLOAD", "CALL", "PHASE", "WAS", "IS", "POINTS"}}}
	differ := 0
	for _, r := range all {
		l := tableLine{row: []string{
			"", strconv.Itoa(r.Case), oneLine(r.Workload), abiName(r.question.Call), r.question.Phase.String(),
			verdictWord(r.Recorded.Verdict), verdictWord(r.Replayed.Verdict), points(r.Replayed),
		}}
		if r.Differs {
			differ++
			l.row[0] = "!"
			l.below = []string{"was: " + legible(r.Recorded.Why), "is:  " + legible(r.Replayed.Why)}
			l.below = append(l.below, otherVotes(r.Recorded.Votes, r.Replayed.Votes)...)
		}
		lines = append(lines, l)
	}
	if _, err := io.WriteString(a.out, table(lines)); err != nil {
		return err
	}
	a.say("%s judged again, %d with another verdict", count(len(all), "case"), differ)
	return nil
}

// points that were given and asked for, where they count.
func points(d judge.Decision) string {
	if d.Verdict == judge.Refuse {
		return "veto"
	}
	return fmt.Sprintf("%d of %d", d.Given, d.Needed)
}

// otherVotes are those of judges who say something else than they did, or nothing now.
func otherVotes(was, is []judge.Vote) (lines []string) {
	find := func(votes []judge.Vote, name string) judge.Vote {
		i := slices.IndexFunc(votes, func(v judge.Vote) bool { return v.Judge == name })
		if i < 0 {
			return judge.Vote{Judge: name, Why: "not heard"}
		}
		return votes[i]
	}
	for _, name := range judge.Names {
		a, b := find(was, name), find(is, name)
		if a.Stance != b.Stance || a.Points != b.Points {
			lines = append(lines, fmt.Sprintf("%s: was %s, is %s", name, voteWords(a), voteWords(b)))
		}
	}
	return lines
}

func voteWords(v judge.Vote) string {
	text := v.Stance.String()
	if v.Points != 0 {
		text += fmt.Sprintf(" with %d", v.Points)
	}
	return text + " (" + legible(v.Why) + ")"
}
