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

func report(all []*trial, o options, ran time.Duration) string {
	var b strings.Builder
	fmt.Fprintf(&b, `Written by `+"`make eval-loops`"+` (testbed/evalloops) on %s: %s, %d CPUs, a private Podman; the run took %s. Each service is started under an empty policy
and from its first answer on four clients ask it, with a new connection for each request, and a fifth asks each second for
something else that it can do, some of which needs other system calls. Nobody answers a question or types a command, until the service is
renewed.

## From an empty policy to serving

| service | oracle | first answer after | loops | learned nothing | converged after | in the oracle | calls in the policy | requests | failed | refused | longest gap |
|---|---|---|---|---|---|---|---|---|---|---|---|
`, time.Now().UTC().Format(time.DateOnly), runtime.GOARCH, runtime.NumCPU(), ran.Round(time.Second))
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
	fmt.Fprintf(&b, "\nThe requests are those until the service had not needed a loop for %s.\n\n", o.settle)
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
	attacks(&b, all, o)
	compared(&b, all, o)
	return b.String()
}

func attacks(b *strings.Builder, all []*trial, o options) {
	fmt.Fprintf(b, `
## Attacked

Each exploit gets a shell from the unprotected service (the tests of testbed/twins prove it), and is repeated here until a loop has ended; none
is waited for longer than %s. The first one of a service comes when it has converged, the others after what is measured below. Meanwhile four clients ask, with a new
connection for each request; each waits 5 ms after one, whatever became of it, so that where nobody listens some hundred connections are refused in a second. What they saw
is told for the time from the beginning of the loop until its oracle served, and for all of the time from the first try until production served again.
Failed are requests that were not refused: the connection was broken off, or the answer was late or wrong. A silence is the longest time without an answer.

| service | exploit | tries | shell | verdict | execve learned | production serves again after | until the oracle served, after | requests, refused, failed, silence | in all: requests, refused, failed, silence |
|---|---|---|---|---|---|---|---|---|---|
`, o.patience)
	for _, t := range all {
		for _, a := range t.attacks {
			verdict, moving, served := a.verdict, "-", "-"
			if verdict == "" {
				verdict = loop.Verdict("refused without a loop")
			} else {
				moving, served = a.moving.String(), seconds(a.moving.took)
			}
			if verdict == loop.VerdictFailed && !a.served {
				served = "never; its end after " + served
			}
			fmt.Fprintf(b, "| %s | %s | %d | %s | %s | %s | %s | %s | %s | %s |\n", t.twin.Name, a.name, a.tries, yes(a.shell), verdict, yes(a.learned),
				seconds(a.back), served, moving, a.others)
		}
	}
	b.WriteString("\n")
	for _, t := range all {
		for _, a := range t.attacks {
			if a.report != "" {
				fmt.Fprintf(b, "- %s, %s: `%s`\n", t.twin.Name, a.name, strings.ReplaceAll(oneLine(a.report), "`", "'"))
			}
			if a.why != "" {
				fmt.Fprintf(b, "- %s, %s, why nothing came of it: %s\n", t.twin.Name, a.name, oneLine(a.why))
			}
		}
	}
}

func compared(b *strings.Builder, all []*trial, o options) {
	fmt.Fprintf(b, `
## What it costs afterwards

Requests a second of a kind that keeps the service busy, over four kept connections; medians of %d rounds of %s in turns. All instances
run, each at a port of its own, and one is asked. "Converged" is the container that has converged and was attacked once, with the filter of its
start: a call of which nobody knew that it is frequent is held. Then the service is kept busy for %s more, and where the agent says
that a call is held too often, it is renewed by `+"`whittle renew`"+` and all are measured anew; each ratio is to the unprotected one of the same rounds.

| service | unprotected | converged | after the renewal for hot calls | always hardened | converged / unprotected | after the renewal / unprotected | hardened / unprotected |
|---|---|---|---|---|---|---|---|
`, o.rounds, o.round, o.watch)
	for _, t := range all {
		first, again := t.served.converged, t.served.renewed
		fmt.Fprintf(b, "| %s | %s | %s | %s | %s | %s | %s | %s |\n", t.twin.Name, rate(first, unprotected), rate(first, whittled), rate(again, whittled),
			rate(first, hardened), ratio(first, whittled), ratio(again, whittled), ratio(first, hardened))
	}
	b.WriteString("\nA request of memcached's is a batch: a hundred values are set, and read by one get. Where the oracle is the same image, hardened by how it is started, there is none that always is.\n\n")
	for _, t := range all {
		if len(t.served.hot) == 0 {
			fmt.Fprintf(b, "- %s: no call was hot.\n", t.twin.Name)
		}
		for _, said := range t.served.hot {
			fmt.Fprintf(b, "- hot: %s\n", said)
		}
	}
}

func rate(r rates, k kind) string { return number(median(r[k]), "%.0f") }

func ratio(r rates, k kind) string {
	bare := median(r[unprotected])
	if bare == 0 {
		return "-"
	}
	return number(median(r[k])/bare, "%.3f")
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
