// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/whittle-sec/whittle/internal/oracle"
)

// hinted is what oracle build-hints --json prints.
type hinted struct {
	Name  string        `json:"name"` // as it was given
	Facts factsJSON     `json:"facts"`
	Hints []oracle.Hint `json:"hints"`
}

// factsJSON are oracle.ImageFacts, with keys.
type factsJSON struct {
	Path        string   `json:"path"`
	Entrypoint  []string `json:"entrypoint"`
	Interpreter string   `json:"interpreter,omitempty"`
	Static      bool     `json:"static,omitempty"`
	Go          bool     `json:"go,omitempty"`
	Rust        bool     `json:"rust,omitempty"`
	Needs       []string `json:"needs,omitempty"`
	Libc        string   `json:"libc,omitempty"`
	Scripts     []string `json:"scripts,omitempty"`
	Distro      string   `json:"distro,omitempty"`
	HasValgrind bool     `json:"valgrind,omitempty"`
}

func newOracleHints(a *app) *cobra.Command {
	var m makers
	cmd := &cobra.Command{
		Use:   "build-hints IMAGE|CONTAINER|EXECUTABLE",
		Short: "which oracles suit an image, and how to build them",
		Long: `Say which kinds of oracle suit an image, a container or an executable, the strongest first, with what to type.
Nothing of it is executed: its program and its libraries are read as files. What has a / at its beginning is an executable of
this host; an image or a container is looked for in Podman, then in Docker (only containers that run).`,
		Example: `  sudo whittle oracle build-hints docker.io/library/redis:7
  whittle oracle build-hints /usr/bin/memcached`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: cobra.FixedCompletions(nil, cobra.ShellCompDirectiveDefault),
		RunE: func(cmd *cobra.Command, args []string) error {
			facts, err := imageFacts(cmd.Context(), args[0], &m)
			if err != nil {
				return err
			}
			h := hinted{Name: args[0], Facts: factsJSON(facts), Hints: append([]oracle.Hint{}, oracle.Hints(facts)...)}
			if a.json {
				return a.printJSON(h)
			}
			_, err = io.WriteString(a.out, hintText(h))
			return err
		},
	}
	m.flags(cmd)
	return cmd
}

// hintText is for a person. Names in it are the image's.
func hintText(h hinted) string {
	var page strings.Builder
	f := h.Facts
	fmt.Fprintf(&page, "%s: %s\n", oneLine(h.Name), oneLine(strings.Join(whatItIs(f), ", ")))
	for _, hint := range h.Hints {
		title := "note"
		if hint.Kind != "" {
			answer := "no"
			if hint.Applies {
				answer = "yes"
			}
			title = fmt.Sprintf("%s (%s): %s", oneLine(string(hint.Kind)), hint.Strength, answer)
		}
		fmt.Fprintf(&page, "\n%s\n    %s\n", title, legible(hint.Why))
		for _, line := range hint.Run {
			fmt.Fprintf(&page, "      %s\n", legible(line))
		}
	}
	return page.String()
}

// whatItIs in a few words.
func whatItIs(f factsJSON) (words []string) {
	words = append(words, f.Path)
	for _, w := range []struct {
		is   bool
		text string
	}{
		{f.Go, "Go"}, {f.Rust, "Rust"}, {f.Static, "statically linked"}, {f.Libc != "", f.Libc}, {f.Distro != "", f.Distro},
		{f.HasValgrind, "with valgrind"},
	} {
		if w.is {
			words = append(words, w.text)
		}
	}
	if len(f.Scripts) > 0 {
		words = append(words, "has "+strings.Join(f.Scripts, ", "))
	}
	return words
}
