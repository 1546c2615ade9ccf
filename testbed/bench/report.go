// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
	"text/tabwriter"
	"time"
)

// report of a run.
type report struct {
	machine []string
	took    time.Duration
	tables  []*table
}

// table of one section, with what a reader must know before it.
type table struct {
	title   string
	about   string
	columns []string
	rows    [][]string
	notes   []string
}

func (r *report) table(title, about string, columns ...string) *table {
	t := &table{title: title, about: about, columns: columns}
	r.tables = append(r.tables, t)
	return t
}

func (t *table) row(cells ...string) { t.rows = append(t.rows, cells) }

func (t *table) note(format string, args ...any) {
	t.notes = append(t.notes, fmt.Sprintf(format, args...))
}

// bar says whether a figure is within what the project promises.
func bar(ok bool, format string, args ...any) string {
	verdict := "MISS"
	if ok {
		verdict = "pass"
	}
	return verdict + ": " + fmt.Sprintf(format, args...)
}

func (r *report) text() string {
	var b strings.Builder
	for _, line := range r.machine {
		fmt.Fprintln(&b, line)
	}
	for _, t := range r.tables {
		fmt.Fprintf(&b, "\n%s\n%s\n\n", strings.ToUpper(t.title), t.about)
		w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
		fmt.Fprintf(w, "  %s\t\n", strings.Join(t.columns, "\t"))
		for _, row := range t.rows {
			fmt.Fprintf(w, "  %s\t\n", strings.Join(row, "\t"))
		}
		w.Flush()
		for _, note := range t.notes {
			fmt.Fprintf(&b, "  %s\n", note)
		}
	}
	fmt.Fprintf(&b, "\nThe whole took %s.\n", r.took.Round(time.Second))
	return b.String()
}

const preface = "Made by `sudo go run ./testbed/bench%s`; `sudo make bench` prints the same for your machine. \"pass\" and \"MISS\" are\n" +
	"against the project's bars; they are printed, not asserted, because a busy machine moves them.\n"

// markdown of the report that these arguments asked for.
func (r *report) markdown(args []string) string {
	var b strings.Builder
	var given strings.Builder
	for _, arg := range args {
		given.WriteString(" " + arg)
	}
	fmt.Fprintf(&b, preface+"\nThe run took %s. The machine:\n\n", given.String(), r.took.Round(time.Second))
	for _, line := range r.machine {
		fmt.Fprintf(&b, "- %s\n", line)
	}
	for _, t := range r.tables {
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n", t.title, t.about)
		fmt.Fprintf(&b, "| %s |\n|%s\n", strings.Join(t.columns, " | "), strings.Repeat("---|", len(t.columns)))
		for _, row := range t.rows {
			fmt.Fprintf(&b, "| %s |\n", strings.Join(row, " | "))
		}
		if len(t.notes) > 0 {
			fmt.Fprintln(&b)
		}
		for _, note := range t.notes {
			fmt.Fprintf(&b, "- %s\n", note)
		}
	}
	return b.String()
}
