// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"github.com/whittle-sec/whittle/internal/api"
	"golang.org/x/sys/unix"
)

const defaultState = "/var/lib/whittle"

// app is what every command shares.
type app struct {
	in        io.Reader
	out, talk io.Writer // results, and everything else
	state     string
	socket    string
	json      bool
	ownState  bool // --state was given
	parsed    bool // the command line was understood
}

func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "whittle",
		Short: "learn which system calls a container needs, and enforce it",
		Long: `Whittle learns which system calls each container needs while it runs, and enforces what was learned.

It starts with one of these:
  sudo whittle run --record policy.json -- COMMAND    learn from a command, no engine needed
  sudo whittle agent                                  learn from every container of this host
  whittle doctor                                      what this host can do`,
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRun: func(cmd *cobra.Command, _ []string) {
			a.parsed = true
			a.ownState = cmd.Flags().Changed("state")
		},
	}
	root.SetOut(a.out)
	root.SetErr(a.talk)
	flags := root.PersistentFlags()
	flags.StringVar(&a.state, "state", defaultState, "`DIR` of the agent's database")
	flags.StringVar(&a.socket, "socket", api.DefaultSocket, "`PATH` of the agent's socket")
	flags.BoolVar(&a.json, "json", false, "print JSON")
	root.AddCommand(newRun(a), newAgent(a), newStatus(a), newAttach(a), newSeal(a), newRenew(a), newPolicy(a), newJudge(a), newOracle(a), newLoop(a), newEvent(a), newAudit(a),
		newDoctor(a), newVersion(a), newMan(a), newHook(a), newRuntime(a), newInstall(a), newUninstall(a), newExecUnder(a), newHolder(a), newInject(a), newRenewJob(a))
	addCompletion(root)
	return root
}

// group is a noun whose verbs are commands. Alone it is a usage error: a typo must not look like success.
func group(use, short string, verbs ...*cobra.Command) *cobra.Command {
	g := &cobra.Command{Use: use, Short: short, Args: cobra.NoArgs}
	g.RunE = func(cmd *cobra.Command, _ []string) error {
		return usageError{fmt.Errorf("%s needs a verb; see %s --help", cmd.CommandPath(), cmd.CommandPath())}
	}
	g.AddCommand(verbs...)
	return g
}

// printJSON is how every command with --json prints its result.
func (a *app) printJSON(v any) error {
	enc := json.NewEncoder(a.out)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("print JSON: %w", err)
	}
	return nil
}

// count of things: "1 run", "2 runs".
func count[N int | uint64](n N, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// table of aligned columns. The caller flushes it.
func (a *app) table() *tabwriter.Writer { return tabwriter.NewWriter(a.out, 0, 8, 2, ' ', 0) }

// command to type next, for the same agent and state.
func (a *app) command(words string) string {
	s := "whittle " + words
	if a.state != defaultState {
		s += " --state " + a.state
	}
	if a.socket != api.DefaultSocket {
		s += " --socket " + a.socket
	}
	return s
}

// say something that is not a result.
func (a *app) say(format string, args ...any) { fmt.Fprintf(a.talk, "whittle: "+format+"\n", args...) }

// isTerminal tells whether somebody watches.
func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
