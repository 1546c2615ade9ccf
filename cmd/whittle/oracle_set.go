// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/hint"
	"github.com/whittle-sec/whittle/internal/oracle"
)

// oracleFlags are an oracle's description as it is typed.
type oracleFlags struct {
	spec                      oracle.Spec
	kind, command, entrypoint string
	env                       []string
	start                     bool
	why                       string
}

func newOracleSet(a *app) *cobra.Command {
	var f oracleFlags
	cmd := &cobra.Command{
		Use:   "set WORKLOAD|CONTAINER",
		Short: "give a workload an oracle: its hardened twin",
		Long: `Give a workload an oracle: the same service, hardened. While the workload is enforced, a call that is outside its policy,
and that no judge vouches for, begins a time loop: the oracle takes production's place, and what it reaches without aborting
is learned. Attacks that corrupt memory make it abort first.

  sanitizer      another image, or command, built with -fsanitize=address or the like; strong
  valgrind       the same image under valgrind, which must be in it; medium, and slow
  audit-python   the same image with an audit hook in the interpreter; medium, for what scripts do
  audit-node     the same image with a module that is loaded first; medium, for what scripts do
  audit-php      the same image with a script that is run before every other; medium, for what scripts do
  hardened       the same image with a checking allocator; weak

whittle oracle build-hints tells which of them suit an image. What is not given is production's. COMMAND and --entrypoint are
split at blanks, or lists of words in JSON.`,
		Example: `  sudo whittle oracle set web-2b3c --image localhost/web:asan --start
  sudo whittle oracle set api --kind audit-python --quiet 30s`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeWorkloads(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			spec, err := f.read()
			if err != nil {
				return err
			}
			return a.setOracle(cmd.Context(), api.OracleRequest{Workload: args[0], Spec: spec, Start: f.start, By: invoker(), Why: f.why})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.spec.Image, "image", "", "`IMAGE` of the oracle, which the engine has already")
	flags.StringVar(&f.kind, "kind", "", "`KIND` of hardening; sanitizer with --image or --command")
	flags.StringVar(&f.command, "command", "", "`COMMAND` of the oracle")
	flags.StringVar(&f.entrypoint, "entrypoint", "", "`COMMAND` of the oracle's entrypoint")
	flags.StringArrayVar(&f.env, "env", nil, "`NAME=VALUE` for the oracle, besides production's; may be repeated")
	flags.StringVar(&f.spec.Preload, "preload", "", "`PATH` in the image of an allocator, for the kind hardened")
	flags.DurationVar(&f.spec.Quiet, "quiet", 0, "`TIME` without a new call after which production comes back (15s)")
	flags.DurationVar(&f.spec.Drain, "drain", 0, "`TIME` that production has to finish what it does (its stop time-out)")
	flags.BoolVar(&f.start, "start", false, "enforce from now on, from an empty policy if nothing was learned")
	flags.StringVar(&f.why, "why", "", "`TEXT` for the journal")
	completeFlag(cmd, "kind", kindNames()...)
	return cmd
}

func kindNames() (names []string) {
	for _, k := range oracle.Kinds {
		names = append(names, string(k))
	}
	return names
}

// read what was typed.
func (f oracleFlags) read() (s oracle.Spec, err error) {
	s = f.spec
	s.Kind = oracle.Kind(f.kind)
	if s.Kind == "" && (s.Image != "" || f.command != "") {
		s.Kind = oracle.Sanitizer
	}
	if !slices.Contains(kindNames(), string(s.Kind)) {
		if f.kind == "" {
			err = errors.New("what is the oracle? Give --image or --kind")
		} else {
			err = fmt.Errorf("unknown kind of oracle %q", oneLine(f.kind))
		}
		return s, usageError{hint.Add(err, "the kinds are "+strings.Join(kindNames(), ", ")+"; whittle oracle build-hints says which suit an image")}
	}
	if s.Command, err = wordsOf("--command", f.command); err != nil {
		return s, err
	}
	if s.Entrypoint, err = wordsOf("--entrypoint", f.entrypoint); err != nil {
		return s, err
	}
	for _, e := range f.env {
		name, value, ok := strings.Cut(e, "=")
		if !ok || name == "" {
			return s, usageError{fmt.Errorf("--env %q: NAME=VALUE is needed", oneLine(e))}
		}
		if s.Env == nil {
			s.Env = map[string]string{}
		}
		s.Env[name] = value
	}
	if s.Quiet < 0 || s.Drain < 0 {
		return s, usageError{errors.New("a time cannot be negative")}
	}
	if err := s.Validate(); err != nil {
		return s, usageError{err}
	}
	return s, nil
}

// wordsOf a command that was given as one flag.
func wordsOf(flag, text string) (words []string, err error) {
	if !strings.HasPrefix(strings.TrimSpace(text), "[") {
		return strings.Fields(text), nil
	}
	if err := json.Unmarshal([]byte(text), &words); err != nil {
		return nil, usageError{hint.Add(fmt.Errorf("%s: read a list of words: %w", flag, err), `write it like this: '["web", "--serve"]'`)}
	}
	return words, nil
}

func (a *app) setOracle(ctx context.Context, r api.OracleRequest) error {
	client := api.NewClient(a.socket)
	defer client.Close()
	o, err := client.SetOracle(ctx, r)
	if err != nil {
		return whatRuns(err)
	}
	if r.Start && o.Mode != api.ModeEnforce {
		m, err := client.SetMode(ctx, api.ModeChange{Workload: o.Workload, Mode: api.ModeEnforce, By: r.By, Why: r.Why})
		if err != nil {
			return fmt.Errorf("the oracle is set, but not enforced: %w", whatRuns(err))
		}
		o.Mode = m.Now
	}
	if a.json {
		return a.printJSON(o)
	}
	s := o.Spec
	text := fmt.Sprintf("%s: its oracle is %s (%s)", oneLine(o.Name), oneLine(string(s.Kind)), oneLine(o.Strength))
	if s.Image != "" {
		text += ", " + oneLine(s.Image)
	}
	if _, err := fmt.Fprintln(a.out, text); err != nil {
		return err
	}
	switch {
	case o.Mode != api.ModeEnforce: // a note says what that means
	case r.Start:
		_, err = fmt.Fprintf(a.out, "%s: enforced from now on; a call that it was not seen to need begins a loop\n", oneLine(o.Name))
	default:
		_, err = fmt.Fprintf(a.out, "%s: a call outside its policy begins a loop from now on\n", oneLine(o.Name))
	}
	if err != nil {
		return err
	}
	for _, p := range o.Problems {
		a.say("problem: %s", oneLine(p))
	}
	for _, n := range o.Notes {
		a.say("note: %s", oneLine(n))
	}
	return nil
}
