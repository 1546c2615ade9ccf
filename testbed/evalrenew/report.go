// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
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
	return ms(median(all)) + " (" + ms(all[len(all)-1]) + ")"
}

func (r result) strategy() string {
	if len(r.rounds) == 0 {
		return "-"
	}
	return string(cmp.Or(r.rounds[0].Chose, "-"))
}

// ours is what the silences have beyond what the service takes by itself: its boot; its stop, or to finish what is slow, if that is
// longer; and nothing while two instances run.
func (r result) ours() []time.Duration {
	if r.way.name == restart {
		return nil
	}
	return r.sorted(func(o round) time.Duration {
		if o.Chose == renew.Overlap {
			return o.Silence
		}
		return o.Silence - median(r.own.boots) - max(median(r.own.stops), o.Drain)
	})
}

// allowed beyond the service's own boot: the bar that the project has set for the time in which nobody is answered.
const allowed = 100 * time.Millisecond

// bar tells whether it is met by the median of the silences, and by the worst.
func (r result) bar() string {
	silences, most := r.sorted(func(o round) time.Duration { return o.Silence }), median(r.own.boots)+allowed
	if len(silences) == 0 {
		return "-"
	}
	return fmt.Sprintf("%s: %s, %s", ms(most), met(median(silences) <= most), met(silences[len(silences)-1] <= most))
}

func met(ok bool) string {
	if ok {
		return "met"
	}
	return "**missed**"
}

func median(sorted []time.Duration) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[len(sorted)/2]
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

const about = `Written by ` + "`make eval-renew`" + ` (testbed/evalrenew) on %s: Linux %s, %d CPUs, a private Podman in a network
namespace of its own; the run took %s. Four clients open a new connection for each request, one after another, and the service's own
load generator (wrk, redis-benchmark, pgbench) does the same beside them, from %s before each renewal until %s after it. A service is either in the network of its host, or in one of its own,
behind a bridge with a published port. Times are medians, with the worst in brackets.

- Refused and failed count requests that were begun when new connections already waited or went to the successor (with ` + "`podman restart`" + `:
  all); in flight, cut off: begun before, not answered. Slow ones are requests of a second that were under way.
- A silence is the longest time in which no request ended well, over all four.
- Own boot is the time from the service's exec to its first answer, own stop that from its stop signal to its end: both of %d
  containers without load, by the signal itself and not by an engine.
- Ours is the silence without these two; where slow requests went on for longer than an own stop after the service was told to stop, without
  that time in its place. With ` + "`overlap`" + ` neither is in it, and all of it is ours.
- The bar: the silence is at most the median own boot and 100 ms, by the median and by the worst of the silences. A service's own stop
  is in its silence where only one instance may run, and not in its bar.

| service | network | way | strategy | renewals | requests | refused | failed | in flight, cut off | slow ones cut off | silence | own boot | own stop | ours | bar | longest request | p99 | took |
|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|
`

func report(all []result, o options, ran time.Duration) string {
	var b strings.Builder
	fmt.Fprintf(&b, about, time.Now().UTC().Format(time.DateOnly), release(), runtime.NumCPU(), ran.Round(time.Second), o.tail, o.tail, o.boot)
	for _, r := range all {
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %d | %d | %d | %d | %d | %d of %d | %s | %s | %s | %s | %s | %s | %s | %s |\n",
			r.service.kind, r.service.network.name, r.way.name, r.strategy(), len(r.rounds),
			r.sum(func(o round) int { return o.Requests }), r.sum(func(o round) int { return o.Refused }),
			r.sum(func(o round) int { return o.Failed }), r.sum(func(o round) int { return o.InFlight }),
			r.sum(func(o round) int { return o.Cut }), r.sum(func(o round) int { return o.Slow }),
			spread(r.sorted(func(o round) time.Duration { return o.Silence })), spread(r.own.boots), spread(r.own.stops),
			spread(r.ours()), r.bar(),
			spread(r.sorted(func(o round) time.Duration { return o.Longest })),
			spread(r.sorted(func(o round) time.Duration { return o.P99 })),
			spread(r.sorted(func(o round) time.Duration { return o.Took })))
	}
	b.WriteString("\n")
	kind := ""
	for _, r := range all {
		if r.service.kind != kind {
			kind = r.service.kind
			fmt.Fprintf(&b, "- %s: %s.\n", kind, r.service.about)
		}
		said := fmt.Sprintf("  - %s, network: %s; ", r.way.name, r.service.network.name)
		if r.way.name != restart {
			fmt.Fprintf(&b, "%sits steps, medians: %s\n", said, r.steps())
		}
		first := slices.IndexFunc(r.rounds, func(one round) bool { return one.Said > 0 })
		if first < 0 {
			fmt.Fprintf(&b, "%sits load generator: nothing failed.\n", said)
			continue
		}
		fmt.Fprintf(&b, "%sits load generator: %d complaints, for instance `%s`\n", said,
			r.sum(func(o round) int { return o.Said }), strings.ReplaceAll(r.rounds[first].Tool[0], "`", "'"))
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
