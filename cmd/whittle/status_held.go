// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/whittle-sec/whittle/internal/api"
	"golang.org/x/sys/unix"
)

// fewRefusals are shown of each container beside others; all of them when it is asked about alone.
const fewRefusals = 5

// modeOf is the MODE that a person wants to see: what is enforced comes before what is learned.
func modeOf(c api.Container) string {
	s := c.Supervision
	switch {
	case s == nil:
		return string(c.Mode)
	case s.Listeners == 0 && s.Sealed:
		return "sealed"
	case s.Sealed:
		return string(s.Mode) + ", sealed"
	}
	return string(s.Mode)
}

// age of something: two units are enough.
func age(d time.Duration) string {
	d = max(d, 0)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm%ds", d/time.Minute, d%time.Minute/time.Second)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%dd%dh", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
}

// printSupervised is one line for each supervised container, or a paragraph where there is only one.
func printSupervised(out io.Writer, containers []api.Container) error {
	if len(containers) == 1 && containers[0].Supervision != nil {
		return printSupervision(out, containers[0])
	}
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	head := "\nSUPERVISED\tBY\tFOR\tANSWERED\tWOULD DENY\tDENIED\tIN THE KERNEL"
	for _, c := range containers {
		s := c.Supervision
		if s == nil {
			continue
		}
		if head != "" {
			fmt.Fprintln(w, head)
			head = ""
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%d\t%s\n", oneLine(c.Name), oneLine(s.How), age(time.Since(s.Since)), s.Calls,
			s.WouldDeny, s.Denied, oneLine(attestation(s)))
	}
	return w.Flush()
}

// attestation in words; what is not as intended must not be overlooked.
func attestation(s *api.Supervision) string {
	switch {
	case s.Deviates:
		return "NOT AS INTENDED: " + s.Attestation
	case s.Attested.IsZero():
		return "not read back yet"
	}
	return s.Attestation
}

func printSupervision(out io.Writer, c api.Container) error {
	s := c.Supervision
	by := map[string]string{
		"start": "its engine started it under the filter", "attach": "the filter was attached while it ran", "seal": "it was sealed",
	}
	lines := []string{
		fmt.Sprintf("%s, in %s, for %s: %s", oneLine(c.Name), modeOf(c), age(time.Since(s.Since)), cmp.Or(by[s.How], oneLine(s.How))),
	}
	if s.Listeners > 0 {
		lines = append(lines,
			fmt.Sprintf("  phase    %s for %s: the kernel lets %s pass; %d more are held and allowed; %s",
				s.Phase, age(time.Since(s.PhaseSince)), count(s.Open, "call"), s.Held, others(s.Mode)),
			fmt.Sprintf("  held     %s answered, %d denied, %d would have been denied; %s", count(s.Calls, "call"), s.Denied,
				s.WouldDeny, count(s.Listeners, "listener")))
	}
	kernel := oneLine(attestation(s))
	if !s.Attested.IsZero() {
		kernel += ", read back " + age(time.Since(s.Attested)) + " ago"
	}
	lines = append(lines, "  kernel   "+kernel)
	_, err := fmt.Fprintln(out, "\n"+strings.Join(lines, "\n"))
	return err
}

// problems of what the kernel enforces, to stand beside the agent's own.
func deviations(containers []api.Container) (all []string) {
	for _, c := range containers {
		if s := c.Supervision; s != nil && s.Deviates {
			all = append(all, fmt.Sprintf("%s is not protected as intended: %s", c.Name, s.Attestation))
		}
	}
	return all
}

// tableLine is a row of a table, with what more there is to say about it below.
type tableLine struct {
	row   []string
	below []string
}

// printRefused of every container: who asked for what, and what to type if that is wrong.
func (a *app) printRefused(out io.Writer, containers []api.Container) error {
	lines := []tableLine{{row: []string{"REFUSED IN", "CALL", "TIMES", "ANSWER", "BY", "LANE", "LAST"}}}
	for _, c := range containers {
		all := a.refusedLines(c)
		if len(containers) > 1 && len(all) > fewRefusals {
			more := fmt.Sprintf("%d more: %s", len(all)-fewRefusals, a.command("status "+shellWord(c.Name)))
			all = all[:fewRefusals]
			all[fewRefusals-1].below = append(all[fewRefusals-1].below, more)
		}
		lines = append(lines, all...)
	}
	if len(lines) == 1 {
		return nil
	}
	_, err := io.WriteString(out, "\n"+table(lines))
	return err
}

// table whose columns are aligned without the lines between them, which would end each column.
func table(lines []tableLine) string {
	var rows bytes.Buffer
	w := tabwriter.NewWriter(&rows, 0, 8, 2, ' ', 0)
	for _, l := range lines {
		fmt.Fprintln(w, strings.Join(l.row, "\t"))
	}
	_ = w.Flush() // a bytes.Buffer takes everything
	var page strings.Builder
	for i, row := range strings.SplitAfter(strings.TrimSuffix(rows.String(), "\n"), "\n") {
		page.WriteString(strings.TrimRight(row, " \n") + "\n")
		for _, text := range lines[i].below {
			page.WriteString("    " + text + "\n")
		}
	}
	return page.String()
}

// refusedLines of one container: the supervisor's, newest first, then those of plain filters.
func (a *app) refusedLines(c api.Container) (lines []tableLine) {
	name := oneLine(c.Name)
	if s := c.Supervision; s != nil {
		for _, r := range s.Refusals {
			answer := errnoName(r.Errno)
			if r.Shadow {
				answer = "shadow: " + answer
			}
			lines = append(lines, tableLine{
				row:   []string{name, fullCall(r.ABI, r.Call), fmt.Sprint(r.Count), answer, asker(r.Comm, r.PID), oneLine(r.Lane), at(r.Last)},
				below: []string{whyHeld(r), a.fixHeld(c, r)},
			})
		}
	}
	for _, r := range c.Refused {
		lines = append(lines, tableLine{
			row:   []string{name, fullCall(r.ABI, r.Call), fmt.Sprint(r.Count), errnoName(r.Errno), asker(r.Comm, r.PID), oneLine(r.Lane), at(r.Last)},
			below: []string{a.fixStatic(c, r)},
		})
	}
	return lines
}

func asker(comm string, pid int) string { return fmt.Sprintf("%s[%d]", oneLine(comm), pid) }

func at(t time.Time) string { return t.Local().Format(time.DateTime) }

// fullCall is how a call is typed: the host's own ABI goes without saying.
func fullCall(abi, call string) string {
	if abi == "" || abi == native.String() {
		return oneLine(call)
	}
	return oneLine(abi + ":" + call)
}

func errnoName(errno int32) string {
	if name := unix.ErrnoName(unix.Errno(errno)); name != "" {
		return name
	}
	return fmt.Sprintf("errno %d", errno)
}

func whyHeld(r api.HeldLine) string {
	who := "phase " + r.Phase.String()
	if r.Role != "" {
		who += ", role " + oneLine(r.Role)
	}
	return fmt.Sprintf("why: %s (%s)", oneLine(r.Why), who)
}
