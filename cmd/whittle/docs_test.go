// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"io"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/filter"
	"github.com/whittle-sec/whittle/internal/judge"
	"github.com/whittle-sec/whittle/internal/loop"
	"github.com/whittle-sec/whittle/internal/oracle"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
	"github.com/whittle-sec/whittle/internal/units"
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

// shellWords of a line, in which single and double quotes group words.
func shellWords(line string) (words []string) {
	var quote rune
	fields := strings.FieldsFunc(line, func(r rune) bool {
		switch {
		case quote == 0 && (r == '\'' || r == '"'):
			quote = r
		case r == quote:
			quote = 0
		}
		return quote == 0 && r == ' '
	})
	for _, f := range fields {
		words = append(words, strings.Trim(f, `'"`))
	}
	return words
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
			cmd, args, err := root.Find(shellWords(line)[1:])
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
		api.Waiting{}, api.Judged{}, replayed{}, explained{}, judged{}, statusPage{},
		api.OracleState{}, oracle.Spec{}, api.LoopState{}, loop.Status{}, loop.Tried{}, loop.Limits{}, loop.Record{}, oracle.Report{}, hinted{}, factsJSON{}, oracle.Hint{},
		units.File{},
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

// Every key of a case is in the page of formats.
func TestCaseIsDescribed(t *testing.T) {
	page, err := os.ReadFile("../../docs/formats.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "\n## A judged call\n")
	section, _, _ = strings.Cut(section, "\n## ")
	full := judge.Question{Call: syscalls.Call{ABI: native}, Phase: policy.Run, Role: "r", Birth: true, Refusal: "r", Novel: true, Arguments: true, Withheld: true}
	text, err := json.Marshal(full)
	if err != nil {
		t.Fatal(err)
	}
	var question map[string]any
	if err := json.Unmarshal(text, &question); err != nil || len(question) < reflect.TypeFor[judge.Question]().NumField() {
		t.Fatalf("a question is %s, %v", text, err)
	}
	keys := slices.Collect(maps.Keys(question))
	for _, v := range []any{judge.Case{}, judge.Evidence{}, judge.Origin{}, judge.Import{}, judge.Fleet{}, judge.Decision{}, judge.Vote{}, judge.Rule{}} {
		for f := range reflect.TypeOf(v).Fields() {
			key, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			keys = append(keys, key)
		}
	}
	for _, key := range keys {
		if !strings.Contains(section, "`"+key+"`") {
			t.Errorf("docs/formats.md does not describe `%s` of a judged call", key)
		}
	}
}
