// SPDX-License-Identifier: Apache-2.0

package learn

import (
	"math"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/internal/policy"
)

// Worked by hand from the formulas of the doc comments.
func TestSample(t *testing.T) {
	tests := []struct {
		name                       string
		s                          Sample
		pUnseen, missing, coverage float64
	}{
		{"nothing", Sample{}, 1, 0, 0},
		{"one unit", Sample{Units: 1, Once: 3, Alone: 1, Incidences: 3}, 1, 0, 1},
		{"all recur", Sample{Units: 24, Incidences: 240}, 1.0 / 25, 0, 1},
		{"uniques and duplicates", Sample{Units: 10, Once: 4, Twice: 2, Alone: 3, Incidences: 40}, 4.0 / 11, 0.9 * 16 / 4, 1 - 0.1*36.0/40},
		{"no duplicates", Sample{Units: 10, Once: 4, Alone: 1, Incidences: 40}, 2.0 / 11, 0.9 * 6, 1 - 0.1*27.0/29},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			near := func(what string, got, want float64) {
				if math.Abs(got-want) > 1e-9 {
					t.Errorf("%s of %+v is %g, want %g", what, tt.s, got, want)
				}
			}
			near("PUnseen", tt.s.PUnseen(), tt.pUnseen)
			near("Missing", tt.s.Missing(), tt.missing)
			near("Coverage", tt.s.Coverage(), tt.coverage)
		})
	}
}

// Leaving one unit out must show it as often as Alone says.
func TestAloneIsLeaveOneOut(t *testing.T) {
	names := append(append([]string{}, loaderCalls[1:]...), "epoll_wait", "poll", "futex") // nothing that moves the cut
	rapid.Check(t, func(rt *rapid.T) {
		s := newScript(t)
		s.epoch(1, observe.CauseReady)
		made := [][]string{}
		for range rapid.IntRange(1, 12).Draw(rt, "seconds") {
			calls := rapid.SliceOfNDistinct(rapid.SampledFrom(names), 1, 8, rapid.ID[string]).Draw(rt, "calls")
			s.service("x", calls...)
			made = append(made, calls)
			s.until(int(s.trace.Length.Seconds())+1, nil)
		}
		want := uint64(0)
		for i, calls := range made {
			others := map[string]bool{}
			for j, other := range made {
				for _, name := range other {
					others[name] = others[name] || i != j
				}
			}
			for _, name := range calls {
				if !others[name] {
					want++
					break
				}
			}
		}
		r := Analyse(s.end(s.trace.Length.Seconds()+1, false), Default())
		if got := estimate(r.Estimates, policy.Run).Epochs; got.Alone != want || got.Units != uint64(len(made)) {
			rt.Fatalf("%d of %d units stand alone, want %d of %d", got.Alone, got.Units, want, len(made))
		}
	})
}

// settledAt replays the trace and returns the second of the run phase in which it first settled, or -1.
func settledAt(t *testing.T, trace observe.Trace) int {
	t.Helper()
	for e := 1; e <= len(trace.Epochs); e++ {
		prefix := trace
		if e < len(trace.Epochs) {
			prefix = trace.Until(uint32(e))
		}
		if r := Analyse(prefix, Default()); r.Settled.Settled {
			return int((prefix.Length - r.Cut.Ready).Seconds())
		}
	}
	return -1
}

func TestSettles(t *testing.T) {
	tests := []struct {
		name     string
		write    func(s *script)
		min, max int // second of the run phase; -1 for never
	}{
		{"redis under steady load", func(s *script) { redis(s, 120) }, 30, 60},
		{"redis with one INFO", func(s *script) {
			redis(s, 20)
			s.burst("redis", 1, "epoll_wait", "getrusage", "writev")
			s.until(120, func(int) { s.burst("redis", 100_000, requestCalls...) })
		}, 60, 90},
		{"redis with a new operation every few seconds", func(s *script) {
			redis(s, 5)
			s.until(100, func(second int) {
				s.burst("redis", 100_000, requestCalls...)
				if second%5 == 0 {
					s.burst("redis", 1, "epoll_wait", serverCalls[0], []string{"getrusage", "writev", "rename", "unlink", "mremap",
						"madvise", "fsync", "fdatasync", "flock", "statfs", "sync", "ftruncate", "link", "symlink", "chmod", "chown",
						"mkdir", "rmdir", "creat", "getuid"}[second/5-1])
				}
			})
		}, -1, -1},
		{"a service that does nothing", func(s *script) {
			redis(s, 1)
			s.until(300, nil)
		}, -1, -1},
		{"a worker with five jobs a second", func(s *script) { worker(s, 120) }, 30, 60},
		{"records were lost", func(s *script) {
			redis(s, 120)
			s.trace.Account.Losses = map[string]uint64{"call": 1}
		}, -1, -1},
		{"not everything was drained", func(s *script) {
			redis(s, 120)
			s.trace.Account.Recorded = 1
		}, -1, -1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newScript(t)
			tt.write(s)
			got := settledAt(t, s.end(s.trace.Length.Seconds()+1, false))
			if got < tt.min || got > tt.max {
				t.Errorf("settled after %d s of running, want %d to %d", got, tt.min, tt.max)
			}
		})
	}
}

func TestReasons(t *testing.T) {
	tests := []struct {
		name  string
		write func(s *script) observe.Trace
		want  []string
	}{
		{"waiting for time", func(s *script) observe.Trace { redis(s, 10); return s.end(11, false) },
			[]string{"waiting: ", "11 of at least 30 epochs of running", "up to 17 % of the next epochs may hold an unseen call, at most 4 % are wanted"}},
		{"settled", func(s *script) observe.Trace { redis(s, 60); return s.end(61, false) },
			[]string{"settled: after 6100610 bursts and 61 epochs of running", "and the account balances"}},
		{"booting", func(s *script) observe.Trace { worker(s, 2); return s.end(3, false) }, []string{"waiting: still booting"}},
		{"a job", func(s *script) observe.Trace {
			s.service("ls", loaderCalls...)
			return s.end(0.1, true)
		}, []string{"waiting: a run of a job with 0 bursts says little about the next: run it again"}},
		{"a job of many bursts", func(s *script) observe.Trace {
			s.burst("make", 1000, "wait4", "clone", "read", "write", "openat", "close")
			return s.end(3, true)
		}, []string{"settled: the job has ended, after 1000 bursts"}},
		{"attached late", func(s *script) observe.Trace {
			s.trace.Account.Late = true
			s.until(60, func(int) { s.burst("redis", 1000, requestCalls...) })
			return s.end(61, false)
		}, []string{"waiting: observation began after the container's start"}},
		{"a damaged trace", func(s *script) observe.Trace { s.trace.Arch = 0; return s.trace }, []string{"waiting: the trace is damaged"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := Analyse(tt.write(newScript(t)), Default()).Settled.Reason
			if strings.Contains(got, ";") || len(got) > 256 {
				t.Errorf("reason %q is longer than a line of a policy", got)
			}
			for _, want := range tt.want {
				if !strings.Contains(got, want) {
					t.Errorf("reason %q\nwant …%s…", got, want)
				}
			}
		})
	}
}

// An hour of a busy service with many roles: what the agent analyses every two seconds in the worst case.
func BenchmarkAnalyse(b *testing.B) {
	for _, bm := range []struct {
		name    string
		seconds int
	}{{"minute", 60}, {"hour", 3600}} {
		b.Run(bm.name, func(b *testing.B) {
			s := newScript(b)
			redis(s, bm.seconds)
			trace := s.end(float64(bm.seconds+1), false)
			replicate(&trace, 1, 20, 1)
			counts := 0
			for _, c := range trace.Cells {
				for _, seen := range c.Calls {
					counts += len(seen.Epochs)
				}
			}
			b.ReportMetric(float64(counts), "counts")
			b.ReportAllocs()
			for b.Loop() {
				Analyse(trace, Default())
			}
		})
	}
}

func TestPercent(t *testing.T) {
	for _, tt := range []struct {
		p    float64
		want string
	}{
		{1, "100 %"}, {0.995, "100 %"}, {0.18, "18 %"}, {0.04, "4 %"}, {0.005, "0.5 %"}, {0.000023, "0.0023 %"}, {0, "0 %"},
	} {
		if got := percent(tt.p); got != tt.want {
			t.Errorf("percent(%g) = %q, want %q", tt.p, got, tt.want)
		}
	}
}
