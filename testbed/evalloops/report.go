// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/whittle-sec/whittle/internal/loop"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

func report(all []*trial) string {
	var b strings.Builder
	fmt.Fprintf(&b, `# Time loops, measured

Written by `+"`make eval-loops`"+` (testbed/evalloops) on %s: %s, %d CPUs, a private Podman. Each service is started under an empty policy
and from its first answer on four clients ask it, with a new connection for each request, and a fifth asks each second for
something else that it can do, some of which needs other system calls. Nobody
answers a question or types a command.

## From an empty policy to serving

| service | oracle | first answer after | loops | learned nothing | converged after | in the oracle | calls in the policy | requests | failed | refused | longest gap |
|---|---|---|---|---|---|---|---|---|---|---|---|
`, time.Now().UTC().Format(time.DateOnly), runtime.GOARCH, runtime.NumCPU())
	for _, t := range all {
		var in time.Duration
		vain := 0
		for _, l := range t.loops {
			in += l.OracleFor
			if len(l.Calls) == 0 {
				vain++
			}
		}
		calls := 0
		for _, c := range t.policy.ABIs {
			var all syscalls.Set
			for _, set := range c.Phases {
				all = all.Union(set)
			}
			calls += all.Len()
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %d | %d | %s | %s | %d | %d | %d | %d | %s |\n", t.twin.Name, t.twin.Kind, seconds(t.answered), len(t.loops), vain,
			seconds(t.converged), seconds(in), calls, t.clients.Requests, t.clients.Failed, t.clients.Refused, seconds(t.clients.LongestGap))
	}
	b.WriteString("\nThe requests are those until the service had not needed a loop for a while.\n\n")
	for _, t := range all {
		for _, l := range t.loops {
			fmt.Fprintf(&b, "- %s, loop %d: %s: %s, %s", t.twin.Name, l.ID, oneLine(l.Cause), l.Verdict, seconds(l.OracleFor))
			if len(l.Calls) > 0 {
				fmt.Fprintf(&b, ", %d calls", len(l.Calls))
			}
			b.WriteString("\n")
		}
		if text := errorsOf(t.clients); text != "" {
			fmt.Fprintf(&b, "- %s, what failed: %s\n", t.twin.Name, oneLine(text))
		}
	}
	attacks(&b, all)
	throughput(&b, all)
	return b.String()
}

func attacks(b *strings.Builder, all []*trial) {
	b.WriteString(`
## Attacked

Each exploit gets a shell from the unprotected service (the tests of testbed/twins prove it), and is repeated here until a loop has ended.

| service | exploit | tries | shell | verdict | execve learned | production serves again after | others: requests, failed, refused |
|---|---|---|---|---|---|---|---|
`)
	for _, t := range all {
		for _, a := range t.attacks {
			verdict := a.verdict
			if verdict == "" {
				verdict = loop.Verdict("refused without a loop")
			}
			fmt.Fprintf(b, "| %s | %s | %d | %s | %s | %s | %s | %d, %d, %d |\n", t.twin.Name, a.name, a.tries, yes(a.shell), verdict, yes(a.learned),
				seconds(a.back), a.requests.Requests, a.requests.Failed, a.requests.Refused)
		}
	}
	b.WriteString("\n")
	for _, t := range all {
		for _, a := range t.attacks {
			if a.report != "" {
				fmt.Fprintf(b, "- %s, %s: `%s`\n", t.twin.Name, a.name, strings.ReplaceAll(oneLine(a.report), "`", "'"))
			}
		}
	}
}

func throughput(b *strings.Builder, all []*trial) {
	b.WriteString(`
## What it costs afterwards

Requests a second of a kind that keeps the service busy, over four kept connections; medians of rounds in turns.

| service | unprotected | converged, under whittle | always hardened | whittle / unprotected | hardened / unprotected |
|---|---|---|---|---|---|
`)
	for _, t := range all {
		bare, ours, hard := median(t.compared[unprotected]), median(t.compared[whittled]), median(t.compared[hardened])
		fmt.Fprintf(b, "| %s | %.0f | %.0f | %s | %s | %s |\n", t.twin.Name, bare, ours, number(hard, "%.0f"), number(ours/bare, "%.3f"), number(hard/bare, "%.3f"))
	}
	b.WriteString("\n")
}

func number(v float64, format string) string {
	if v == 0 {
		return "-"
	}
	return fmt.Sprintf(format, v)
}

func median(all []float64) float64 {
	if len(all) == 0 {
		return 0
	}
	all = slices.Sorted(slices.Values(all))
	return all[len(all)/2]
}

func yes(v bool) string {
	if v {
		return "**yes**"
	}
	return "no"
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
