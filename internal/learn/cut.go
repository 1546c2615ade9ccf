// SPDX-License-Identifier: Apache-2.0

package learn

import (
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/syscalls"
)

// Cut divides a trace's epochs into phases.
type Cut struct {
	// Of has the phase of each epoch.
	Of []policy.Phase
	// BootEnd is the first epoch that does not belong to booting; the number of epochs if all do.
	BootEnd int
	// Ready is when booting ended, since the container was added. It means nothing while booting.
	Ready time.Duration
	// Confirmed is true when enough time has passed since that nothing more can move BootEnd.
	Confirmed bool
	// Method and Reason say by what rule, and in plain words why there.
	Method string
	Reason string
	// accepted is true when the first successful accept was seen before the stop.
	accepted bool
	// present has the phases that Of holds.
	present [len(policy.Phases)]bool
}

// divide gives each epoch its phase: run from BootEnd, stop from the epoch end, boot before.
func (c *Cut) divide(epochs, end int) {
	c.Of = make([]policy.Phase, epochs)
	for e := range c.Of {
		switch {
		case e >= end:
			c.set(e, policy.Stop)
		case e >= c.BootEnd:
			c.set(e, policy.Run)
		default:
			c.set(e, policy.Boot)
		}
	}
}

func (c *Cut) set(epoch int, phase policy.Phase) {
	c.Of[epoch] = phase
	c.present[phase] = true
}

// Now is the phase of the last epoch.
func (c Cut) Now() policy.Phase {
	if len(c.Of) == 0 {
		return policy.Boot
	}
	return c.Of[len(c.Of)-1]
}

func (c Cut) has(phase policy.Phase) bool { return c.present[phase] }

func (c Cut) phases() (n int) {
	for _, present := range c.present {
		if present {
			n++
		}
	}
	return n
}

// phasesOf are the phases in which a call with these counts is allowed, and its count in each. If calls were lost these
// are all phases that the container went through. The accept whose success opened the run phase was counted when it was
// made, in boot: a service with one lasting connection would not be allowed a second if it did not belong to both.
func (c Cut) phasesOf(call syscalls.Call, counts []observe.EpochCount, lost bool) iter.Seq2[policy.Phase, uint64] {
	var sum [len(policy.Phases)]uint64
	var is [len(policy.Phases)]bool
	for _, e := range counts {
		phase := c.Of[e.Epoch()]
		is[phase] = true
		sum[phase] += e.Count()
	}
	if c.accepted && is[policy.Boot] && slices.Contains(accepts, call.String()) {
		is[policy.Run] = true
	}
	if lost {
		is = c.present
	}
	return func(yield func(policy.Phase, uint64) bool) {
		for _, phase := range policy.Phases {
			if is[phase] && !yield(phase, sum[phase]) {
				return
			}
		}
	}
}

var accepts = []string{"accept", "accept4"}

// Phases cuts a valid trace into boot, run, reload and stop.
func Phases(t observe.Trace, cfg Config) Cut { return phases(t, newSeries(t), cfg) }

func phases(t observe.Trace, s *series, cfg Config) Cut {
	end := len(t.Epochs)
	if stop, ok := t.Mark(observe.CauseStop); ok {
		end = stop
	}
	cut := bootEnd(t, s, end, cfg)
	cut.divide(len(t.Epochs), end)
	if cut.BootEnd < len(t.Epochs) {
		cut.Ready = t.Epochs[cut.BootEnd].Start
	}
	reloads(t, s, &cut, cfg)
	return cut
}

// bootEnd decides where booting ends among the epochs before end, where the container was asked to stop.
func bootEnd(t observe.Trace, s *series, end int, cfg Config) Cut {
	ready, accepted := t.Mark(observe.CauseReady)
	accepted = accepted && ready < end
	if t.Account.Late && !bootSeen(t, ready, accepted) {
		return Cut{Method: "late", Confirmed: true, Reason: "observation began when the container was running: its boot was not seen"}
	}
	if accepted {
		return readyCut(t, s, ready, end, cfg)
	}
	if k, ok := s.firstChange(end, cfg.Horizon.Seconds()); ok {
		cut := Cut{BootEnd: k, Method: methodChangePoint}
		cut.BootEnd = max(k, s.extended(k, end, 0, cfg.Horizon.Seconds()))
		_, cut.Confirmed = s.after(cut.BootEnd, cfg.Horizon.Seconds(), end)
		cut.Reason = fmt.Sprintf("nothing was accepted, and of %d calls %d were new in the first %s, %d in the %s after it",
			s.freshIn(0, end), s.freshIn(0, cut.BootEnd), show(t.Epochs[cut.BootEnd].Start),
			s.freshInTime(cut.BootEnd, cfg.Horizon.Seconds(), end), show(cfg.Horizon))
		return cut
	}
	cut := Cut{BootEnd: end, Method: methodChangePoint, Reason: "still booting: nothing was accepted and new calls may still arrive"}
	if t.Ended || end < len(t.Epochs) {
		cut.Confirmed = true
		cut.Reason = "no run phase: nothing was accepted, and it ended before it settled into waiting"
	}
	return cut
}

// bootSeen reports whether a container that was running when observation began was still booting then: it was seen to
// begin listening before it first accepted.
func bootSeen(t observe.Trace, ready int, accepted bool) bool {
	return accepted && lastMade(t, 0, ready, false, "listen") >= 0
}

// readyCut is the kernel's mark of the first accept, unless what follows shows that booting went on.
func readyCut(t observe.Trace, s *series, ready, end int, cfg Config) Cut {
	cut := Cut{BootEnd: ready, Method: "first accept", accepted: true}
	why := fmt.Sprintf("first accept at %s", show(t.Epochs[ready].Start))
	horizon, settling := cfg.Horizon.Seconds(), cfg.Settling.Seconds()
	if k := restarted(t, s, ready, end, cfg); k > cut.BootEnd && k < end {
		cut.BootEnd, cut.Method = k, "first accept, moved by a restart"
		why += fmt.Sprintf(", but a program was started and listened until %s", show(t.Epochs[k].Start))
	}
	if k := s.extended(cut.BootEnd, end, settling, horizon); k > cut.BootEnd && k < end {
		cut.BootEnd, cut.Method = k, "first accept, moved by the "+methodChangePoint
		why += fmt.Sprintf(", but new calls kept arriving as while booting until %s", show(t.Epochs[k].Start))
	}
	if _, cut.Confirmed = s.after(cut.BootEnd, cfg.Confirm.Seconds(), end); !cut.Confirmed && !t.Ended && end == len(t.Epochs) {
		cut.Reason = why + ", not confirmed yet"
		return cut
	}
	cut.Confirmed = true
	fresh := s.freshInTime(cut.BootEnd, cfg.Confirm.Seconds(), end)
	cut.Reason = fmt.Sprintf("%s, confirmed: %s in the %s after it, %d before", why, newCalls(fresh), show(cfg.Confirm),
		s.freshIn(0, cut.BootEnd))
	return cut
}

// restarted is the epoch after the last one in which a program both was executed and began to listen since the first
// accept: PostgreSQL's and MariaDB's entrypoints run a temporary server to create the database, talk to it, stop it,
// and start the real one, whose calls are nearly all known by then. A server that opens one more port while it runs
// executes nothing, one that runs a helper does not listen, and a forked child that listens (FTP) is not of generation 0.
func restarted(t observe.Trace, s *series, ready, end int, cfg Config) int {
	until, _ := s.after(ready, cfg.Restart.Seconds(), end)
	if reload, ok := t.Mark(observe.CauseReload); ok {
		until = min(until, max(reload, ready)) // haproxy and php-fpm execute themselves to reload
	}
	listened := lastMade(t, ready, until, true, "listen")
	if listened < 0 || lastMade(t, ready, listened+1, false, "execve", "execveat") < 0 {
		return ready
	}
	return listened + 1
}

func (s *series) freshInTime(epoch int, seconds float64, end int) int {
	until, _ := s.after(epoch, seconds, end)
	return s.freshIn(epoch, until)
}

func newCalls(n int) string {
	switch n {
	case 0:
		return "no new call"
	case 1:
		return "1 new call"
	}
	return fmt.Sprintf("%d new calls", n)
}

// show a time to the millisecond, as "0.112 s".
func show(d time.Duration) string { return fmt.Sprintf("%.4g s", d.Round(time.Millisecond).Seconds()) }
