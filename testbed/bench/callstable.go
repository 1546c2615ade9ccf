// SPDX-License-Identifier: Apache-2.0

package main

import "fmt"

// The bars, in ns a call above an empty program, and as a ratio to nothing at all.
const (
	barObserved   = 30
	barUnobserved = 10
	barDetached   = 0.03
)

func (c *calls) tabulate(r *report) {
	for _, loop := range []struct{ title, about, suffix string }{
		{"One system call", fmt.Sprintf("What one getppid costs its process, in ns of its CPU time: the cheapest call there is, so "+
			"that every ns is seen. Each of %d rounds measures what the bars are about one after the other, each as the least of %d × %d calls, "+
			"and every fourth round the rest; the table shows the median and the least over the rounds. A difference is the median of "+
			"the differences within a round, or between medians for what was not measured in each.", callRounds, plain.Rounds, plain.Calls), ""},
		{"One system call of a server", fmt.Sprintf("The same for the calls of a server's request: epoll_pwait, read, write, and so "+
			"on, which ends a burst with every third call. %d × %d calls.", request.Rounds, request.Calls), ofRequests},
	} {
		t := r.table(loop.title, loop.about, "variant", "median", "least", "above empty", "above nothing", "bar")
		c.rows(t, loop.suffix)
	}
}

func (c *calls) rows(t *table, suffix string) {
	none, empty, two := c.costs["nothing"+suffix], c.costs["empty"+suffix], c.costs["empty both"+suffix]
	row := func(label, name string, over series, judge func(diff float64) string) {
		s := c.costs[name+suffix]
		if len(s) == 0 {
			if suffix == "" {
				t.row(label, "not measured: it is not installed", "", "", "", "")
			}
			return
		}
		above, verdict := "", ""
		if over != nil {
			diff := s.above(over)
			above = fmt.Sprintf("%+.1f", diff)
			if judge != nil {
				verdict = judge(diff)
			}
		}
		t.row(label, ns(s.median()), ns(s.least()), above, fmt.Sprintf("%+.1f", s.above(none)), verdict)
	}
	most := func(limit float64) func(float64) string {
		return func(diff float64) string { return bar(diff <= limit, "at most %+.0f", limit) }
	}
	row("nothing attached", "nothing", nil, nil)
	row("empty program on sys_enter", "empty", nil, nil)
	row("observed process", "observed", empty, most(barObserved))
	row("unobserved process beside it", "unobserved", empty, most(barUnobserved))
	row("nothing learning any more", "detached", nil, nil)
	row("empty programs on sys_enter and sys_exit", "empty both", nil, nil)
	row("observed, with the feed of denials", "observed, feed", two, nil)
	row("unobserved, with the feed of denials", "unobserved, feed", two, nil)
	row("observed, with it, 10,000 containers", "observed, 10,000", two, nil)
	row("unobserved, with it, 10,000 containers", "unobserved, 10,000", two, nil)
	row("enforced, denials reported", "watched", empty, nil)
	row("another process meanwhile", "unwatched", empty, nil)
	row("bpftrace, count by cgroup and number", "bpftrace", empty, nil)
	row("strace -f -c (time, not CPU time)", "strace", empty, nil)
	ratio := 1 + c.costs["detached"+suffix].above(none)/none.median()
	t.note("Once nothing learns, a call costs %.3f of what it costs with nothing attached. %s", ratio,
		bar(ratio <= 1+barDetached && ratio >= 1-barDetached, "1.00 ± %.2f", barDetached))
	feed := func(name string) float64 { return c.costs[name+suffix].median() }
	more := func(name string) string {
		one, many := c.costs[name+", feed"+suffix], c.costs[name+", 10,000"+suffix]
		return fmt.Sprintf("%+.1f ns (%+.1f by the least)", many.median()-one.median(), many.least()-one.least())
	}
	t.note("10,000 containers instead of one: %s for an observed process, %s for an unobserved one.", more("observed"), more("unobserved"))
	t.note("The feed of denials (sys_exit) is attached while a container boots or runs under a filter that can deny; it adds "+
		"%+.1f ns to an observed process and %+.1f ns to any other. \"Above empty\" in its rows is above two empty programs, "+
		"and above one for what has sys_exit only.", feed("observed, feed")-feed("observed"), feed("unobserved, feed")-feed("unobserved"))
	c.disturbed(t, suffix)
}

// disturbed says how good the figures are.
func (c *calls) disturbed(t *table, suffix string) {
	for _, name := range []string{"nothing", "empty", "observed", "unobserved", "detached", "empty both", "observed, feed", "watched"} {
		if n, clean := c.costs[name+suffix].usable(); !clean {
			t.note("Another tracer was attached on this host during most of the %d samples of %q: they say too much.", n, name)
		}
	}
}

func ns(v float64) string {
	if v >= 1000 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.1f", v)
}
