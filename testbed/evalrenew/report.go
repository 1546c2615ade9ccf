// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/renew"
)

func (r round) line() string {
	var text strings.Builder
	text.WriteString(fmt.Sprintf("%d requests, %d refused, %d failed, %d in flight; longest %s, silence %s, p99 %s; took %s",
		r.Requests, r.Refused, r.Failed, r.InFlight, ms(r.Longest), ms(r.Silence), ms(r.P99), ms(r.Took)))
	if r.Chose != "" {
		text.WriteString(fmt.Sprintf(" (%s, gap %s)", r.Chose, ms(r.Gap)))
	}
	if r.Slow > 0 {
		text.WriteString(fmt.Sprintf("; %d of %d slow ones cut off", r.Cut, r.Slow))
	}
	for _, e := range append(slices.Clone(r.Errors), r.Tool...) {
		text.WriteString("\n    " + e)
	}
	return text.String()
}

func ms(d time.Duration) string { return fmt.Sprintf("%.0f ms", float64(d)/float64(time.Millisecond)) }

// of the rounds, the sum or the sorted values of something.
func (r result) sum(f func(round) int) (n int) {
	for _, one := range r.rounds {
		n += f(one)
	}
	return n
}

func (r result) sorted(f func(round) time.Duration) (all []time.Duration) {
	for _, one := range r.rounds {
		all = append(all, f(one))
	}
	slices.Sort(all)
	return all
}

// spread is the median and the worst.
func spread(all []time.Duration) string {
	if len(all) == 0 {
		return "-"
	}
	return ms(all[len(all)/2]) + " (" + ms(all[len(all)-1]) + ")"
}

func (r result) strategy() string {
	if len(r.rounds) == 0 || r.rounds[0].Chose == "" {
		return "-"
	}
	return r.rounds[0].Chose
}

// steps with the median of how long each took.
func (r result) steps() string {
	took := map[renew.Step][]time.Duration{}
	var order []string
	for _, one := range r.rounds {
		for _, d := range one.Steps {
			if took[d.Step] == nil {
				order = append(order, string(d.Step))
			}
			took[d.Step] = append(took[d.Step], d.Took)
		}
	}
	for i, name := range order {
		all := slices.Sorted(slices.Values(took[renew.Step(name)]))
		order[i] = name + " " + ms(all[len(all)/2])
	}
	return strings.Join(order, ", ")
}

func report(all []result) string {
	var b strings.Builder
	fmt.Fprintf(&b, `# What clients see of a renewal

Written by `+"`make eval-renew`"+` (testbed/evalrenew) on %s: Linux %s, %d CPUs, a private Podman, containers in the host's network
namespace. Four clients open a new connection for each request, one after another, and the service's own load generator (wrk, redis-benchmark,
pgbench) does the same beside them. A silence is the longest time in which no request ended well, over all four; boot is the time from
the service's exec to its first answer, without load. Times are medians, with the worst in brackets.

| service | way | strategy | renewals | requests | refused | failed | in flight, cut off | slow ones cut off | silence | longest request | p99 | boot | took |
|---|---|---|---|---|---|---|---|---|---|---|---|---|---|
`, time.Now().UTC().Format(time.DateOnly), release(), runtime.NumCPU())
	for _, r := range all {
		fmt.Fprintf(&b, "| %s | %s | %s | %d | %d | %d | %d | %d | %d of %d | %s | %s | %s | %s | %s |\n",
			r.service.name, r.way.name, r.strategy(), len(r.rounds),
			r.sum(func(o round) int { return o.Requests }), r.sum(func(o round) int { return o.Refused }),
			r.sum(func(o round) int { return o.Failed }), r.sum(func(o round) int { return o.InFlight }),
			r.sum(func(o round) int { return o.Cut }), r.sum(func(o round) int { return o.Slow }),
			spread(r.sorted(func(o round) time.Duration { return o.Silence })),
			spread(r.sorted(func(o round) time.Duration { return o.Longest })),
			spread(r.sorted(func(o round) time.Duration { return o.P99 })),
			spread(r.boots), spread(r.sorted(func(o round) time.Duration { return o.Took })))
	}
	b.WriteString("\nRefused and failed count requests that were begun when new connections already waited or went to the successor (with " +
		"`podman restart`: all); in flight, cut off: begun before, not answered. Slow ones are requests of a second that were under way.\n\n")
	for _, r := range all {
		if r.way.name != "podman restart" {
			fmt.Fprintf(&b, "- %s: %s.\n", r.service.name, r.service.about)
			fmt.Fprintf(&b, "  - its steps, medians: %s\n", r.steps())
		}
		said := slices.IndexFunc(r.rounds, func(one round) bool { return one.Said > 0 })
		if said < 0 {
			fmt.Fprintf(&b, "  - its load generator, %s: nothing failed.\n", r.way.name)
			continue
		}
		fmt.Fprintf(&b, "  - its load generator, %s: %d complaints, for instance `%s`\n", r.way.name,
			r.sum(func(o round) int { return o.Said }), strings.ReplaceAll(r.rounds[said].Tool[0], "`", "'"))
	}
	return b.String()
}

func release() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		fmt.Fprintln(os.Stderr, "eval-renew: uname:", err)
		return "?"
	}
	return unix.ByteSliceToString(u.Release[:])
}
