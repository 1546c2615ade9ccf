// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/filter"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/workload"
)

// examples in the page and in the commands' own help: lines that begin with whittle or sudo whittle.
func examples(t *testing.T, root *cobra.Command) (lines []string) {
	t.Helper()
	page, err := os.ReadFile("../../docs/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	text.WriteString(string(page))
	for _, cmd := range all(root) {
		text.WriteString("\n" + cmd.Example)
	}
	for line := range strings.Lines(text.String()) {
		line, _, _ = strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "sudo "), "#")
		line, _, _ = strings.Cut(line, " && ")
		line, _, _ = strings.Cut(line, " | ")
		line, _, _ = strings.Cut(line, " > ")
		if strings.HasPrefix(line, "whittle ") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

// all commands that are shown.
func all(cmd *cobra.Command) []*cobra.Command {
	list := []*cobra.Command{cmd}
	for _, sub := range cmd.Commands() {
		if !sub.Hidden {
			list = append(list, all(sub)...)
		}
	}
	return list
}

func TestExamplesParse(t *testing.T) {
	used := map[string]bool{}
	for _, line := range examples(t, newRoot(&app{out: io.Discard, talk: io.Discard})) {
		t.Run(line, func(t *testing.T) {
			root := newRoot(&app{out: io.Discard, talk: io.Discard})
			cmd, args, err := root.Find(strings.Fields(line)[1:])
			if err != nil {
				t.Fatal(err)
			}
			if cmd == root {
				return // prose
			}
			used[cmd.CommandPath()] = true
			if err := cmd.ParseFlags(args); err != nil {
				t.Fatal(err)
			}
			if err := cmd.ValidateArgs(cmd.Flags().Args()); err != nil {
				t.Error(err)
			}
		})
	}
	for _, cmd := range all(newRoot(&app{out: io.Discard, talk: io.Discard})) {
		if !cmd.HasSubCommands() && !used[cmd.CommandPath()] {
			t.Errorf("docs/cli.md has no example of %s", cmd.CommandPath())
		}
	}
}

// Every command says what it is for, and those that print state have --json from the root.
func TestHelp(t *testing.T) {
	for _, cmd := range all(newRoot(&app{out: io.Discard, talk: io.Discard})) {
		if cmd.Short == "" || strings.HasSuffix(cmd.Short, ".") {
			t.Errorf("%s: short help is %q", cmd.CommandPath(), cmd.Short)
		}
		for _, name := range []string{"state", "socket", "json"} {
			if cmd.Flag(name) == nil {
				t.Errorf("%s has no --%s", cmd.CommandPath(), name)
			}
		}
	}
}

// Every key that is printed is in the page.
func TestKeysAreDescribed(t *testing.T) {
	page, err := os.ReadFile("../../docs/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	known := string(page) + "`allowed` `default_allowed` `neutralised` `exposed`" // in docs/formats.md
	for _, v := range []any{
		api.Status{}, api.Container{}, workload.Container{}, api.Refusal{}, api.Summary{}, api.Revision{}, api.Event{}, finding{},
		api.Supervision{}, api.HeldLine{}, api.ModeState{}, api.AttachResult{}, api.AttachedProcess{}, api.GrantResult{},
		api.Waiting{}, api.Judged{}, replayed{}, explained{}, judged{},
		score{}, filter.Audit{}, policy.Explanation{}, policy.Change{}, planned{}, plannedPhase{}, plannedCall{},
	} {
		for f := range reflect.TypeOf(v).Fields() {
			key, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if key != "" && key != "-" && !strings.Contains(known, "`"+key+"`") {
				t.Errorf("docs/cli.md does not describe `%s` of %T", key, v)
			}
		}
	}
}
