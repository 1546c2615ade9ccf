// SPDX-License-Identifier: Apache-2.0

package learn

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/whittle-sec/whittle/internal/observe"
	"github.com/whittle-sec/whittle/internal/policy"
)

func TestBootEnd(t *testing.T) {
	tests := []struct {
		name      string
		write     func(s *script) observe.Trace
		want      int // epoch
		confirmed bool
		reason    string // part of it
	}{
		{
			name:      "load from the first millisecond",
			write:     func(s *script) observe.Trace { redis(s, 20); return s.end(21, false) },
			want:      1,
			confirmed: true,
			reason:    "first accept at 0.112 s, confirmed: 5 new calls in the 3 s after it, 36 before",
		},
		{
			name:   "readiness is not confirmed at once",
			write:  func(s *script) observe.Trace { redis(s, 2); return s.end(2.5, false) },
			want:   1,
			reason: "not confirmed yet",
		},
		{
			name: "the first client comes late",
			write: func(s *script) observe.Trace {
				s.service("nginx", loaderCalls...)
				s.service("nginx", serverCalls...)
				s.until(30, nil)
				s.epoch(30.4, observe.CauseReady)
				s.burst("nginx", 1, connectCalls...)
				s.burst("nginx", 1, requestCalls...)
				s.until(60, nil)
				return s.end(61, false)
			},
			want:      31,
			confirmed: true,
			reason:    "first accept at 30.4 s",
		},
		{
			name:      "a queue worker never listens",
			write:     func(s *script) observe.Trace { worker(s, 20); return s.end(21, false) },
			want:      1,
			confirmed: true,
			reason:    "nothing was accepted",
		},
		{
			name: "a worker that takes four seconds to boot",
			write: func(s *script) observe.Trace {
				s.service("worker", loaderCalls...)
				for i, at := range []float64{1, 2, 3} {
					s.epoch(at, observe.CauseTick)
					s.service("worker", serverCalls[i*6:i*6+6]...)
				}
				s.until(20, func(int) { s.burst("worker", 5, requestCalls...) })
				return s.end(21, false)
			},
			want:      4,
			confirmed: true,
		},
		{
			name: "a UDP service idle for a minute",
			write: func(s *script) observe.Trace {
				s.service("dns", loaderCalls...)
				s.service("dns", "socket", "bind")
				s.until(60, nil)
				s.until(90, func(int) { s.service("dns", "recvfrom", "sendto") })
				return s.end(91, false)
			},
			want:      1,
			confirmed: true,
			reason:    "nothing was accepted",
		},
		{
			name:   "a worker is not trusted before the horizon",
			write:  func(s *script) observe.Trace { worker(s, 3); return s.end(4, false) },
			want:   4,
			reason: "still booting",
		},
		{
			name: "a batch job that never waits",
			write: func(s *script) observe.Trace {
				s.service("sort", loaderCalls...)
				s.until(60, func(int) { s.service("sort", "read", "write") })
				s.service("sort", "exit_group")
				return s.end(61, true)
			},
			want:      61,
			confirmed: true,
			reason:    "no run phase",
		},
		{
			name: "a batch job that ends at once",
			write: func(s *script) observe.Trace {
				s.service("ls", loaderCalls...)
				s.burst("ls", 1, "nanosleep", "getdents64")
				return s.end(0.1, true)
			},
			want:      1,
			confirmed: true,
			reason:    "no run phase",
		},
		{
			name: "a script that waits for its child",
			write: func(s *script) observe.Trace {
				s.service("sh", loaderCalls...)
				s.until(40, nil)
				s.burst("sh", 1, "wait4", "write")
				return s.end(41, true)
			},
			want:      41,
			confirmed: true,
		},
		{
			name:      "an entrypoint with a temporary server",
			write:     func(s *script) observe.Trace { entrypoint(s, 30); return s.end(31, false) },
			want:      5,
			confirmed: true,
			reason:    "first accept at 2 s, but a program was started and listened until 5 s",
		},
		{
			name: "new calls keep arriving as while booting",
			write: func(s *script) observe.Trace {
				calls := append(append([]string{}, loaderCalls...), serverCalls...)
				next := func(n int) { s.service("app", calls[:n]...); calls = calls[n:] }
				next(6)
				s.until(2, func(int) { next(6) })
				s.epoch(3, observe.CauseReady)
				next(4)
				s.until(6, func(int) { next(4) })
				s.until(30, func(int) { s.burst("app", 100, requestCalls...) })
				return s.end(31, false)
			},
			want:      8, // epochs before 0, 1, 2, 3 (ready), 4, 5, 6 s, and the first with requests
			confirmed: true,
			reason:    "but new calls kept arriving as while booting until 8 s",
		},
		{
			name: "an operation seen once, long after readiness",
			write: func(s *script) observe.Trace {
				redis(s, 33)
				s.burst("redis", 1, "epoll_wait", "getrusage", "writev")
				s.until(60, func(int) { s.burst("redis", 100_000, requestCalls...) })
				return s.end(61, false)
			},
			want:      1,
			confirmed: true,
		},
		{
			name: "a server that opens another port",
			write: func(s *script) observe.Trace {
				redis(s, 10)
				s.service("redis", "socket", "bind", "listen")
				s.until(60, func(int) { s.burst("redis", 100_000, requestCalls...) })
				return s.end(61, false)
			},
			want:      1,
			confirmed: true,
		},
		{
			name: "attached to a running container",
			write: func(s *script) observe.Trace {
				s.trace.Account.Late = true
				s.epoch(0.01, observe.CauseReady)
				s.until(20, func(int) { s.burst("redis", 100_000, requestCalls...) })
				return s.end(21, false)
			},
			want:      0,
			confirmed: true,
			reason:    "its boot was not seen",
		},
		{
			name: "attached while it was still booting",
			write: func(s *script) observe.Trace {
				s.trace.Account.Late = true
				redis(s, 20)
				return s.end(21, false)
			},
			want:      1,
			confirmed: true,
		},
		{
			name: "stopped while booting",
			write: func(s *script) observe.Trace {
				s.service("app", loaderCalls...)
				s.epoch(0.5, observe.CauseStop)
				s.service("app", "exit_group")
				return s.end(0.6, true)
			},
			want:      1,
			confirmed: true,
		},
		{
			name:   "nothing happened yet",
			write:  func(s *script) observe.Trace { s.trace.Epochs = nil; return s.end(0, false) },
			want:   0,
			reason: "still booting",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cut := Phases(tt.write(newScript(t)), Default())
			if cut.BootEnd != tt.want || cut.Confirmed != tt.confirmed || !strings.Contains(cut.Reason, tt.reason) {
				t.Errorf("boot ends at epoch %d, confirmed %v: %s\nwant epoch %d, confirmed %v: …%s…",
					cut.BootEnd, cut.Confirmed, cut.Reason, tt.want, tt.confirmed, tt.reason)
			}
		})
	}
}

// The kinds of services for the properties below: each has its cut after 20 s, and load that can be multiplied.
var kinds = map[string]func(*script, int){"redis": redis, "worker": worker, "entrypoint": entrypoint}

func TestCutProperties(t *testing.T) {
	for name, write := range kinds {
		t.Run(name, func(t *testing.T) {
			s := newScript(t)
			write(s, 20)
			want := Phases(s.end(21, false), Default()).BootEnd
			rapid.Check(t, func(rt *rapid.T) {
				seconds := rapid.IntRange(20, 60).Draw(rt, "seconds")
				s := newScript(t)
				write(s, seconds)
				trace := s.end(float64(seconds+1), false)
				shift := time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(rt, "shift"))
				for i := range trace.Epochs {
					trace.Epochs[i].Start += shift
				}
				trace.Length += shift
				replicate(&trace, want, rapid.IntRange(0, 3).Draw(rt, "replicas"), rapid.Uint64Range(1, 1000).Draw(rt, "load"))
				if got := Phases(trace, Default()); got.BootEnd != want {
					rt.Fatalf("boot ends at epoch %d (%s), want %d", got.BootEnd, got.Reason, want)
				}
			})
		})
	}
}

// replicate adds processes that do what the service does after the cut, and multiplies the load.
func replicate(t *observe.Trace, cut, replicas int, load uint64) {
	cells, bursts := len(t.Cells), len(t.Bursts)
	for n := range replicas {
		for _, cell := range t.Cells[:cells] {
			copied := observe.Cell{Lane: cell.Lane, Role: cell.Role}
			copied.Role.Exe += string(rune('a' + n))
			for _, seen := range cell.Calls {
				var counts []observe.EpochCount
				for _, e := range seen.Epochs {
					if int(e.Epoch()) >= cut {
						counts = append(counts, observe.EpochCount{e[0], e[1] * load})
					}
				}
				if len(counts) > 0 {
					copied.Calls = append(copied.Calls, observe.Seen{Call: seen.Call, Epochs: counts})
				}
			}
			t.Cells = append(t.Cells, copied)
		}
		for _, b := range t.Bursts[:bursts] {
			b.Cell += cells * (n + 1)
			t.Bursts = append(t.Bursts, b)
		}
	}
}

// Once confirmed, a cut stays whatever is observed later.
func TestCutStays(t *testing.T) {
	for name, write := range kinds {
		t.Run(name, func(t *testing.T) {
			s := newScript(t)
			write(s, 120)
			trace := s.end(121, false)
			want := Phases(trace, Default()).BootEnd
			// The entrypoint's temporary server is taken for the real one until the real one listens.
			for e := want + 8; e < len(trace.Epochs); e++ {
				if got := Phases(trace.Until(uint32(e)), Default()); got.BootEnd != want || !got.Confirmed {
					t.Fatalf("before epoch %d boot ends at %d, confirmed %v (%s), want %d", e, got.BootEnd, got.Confirmed, got.Reason, want)
				}
			}
		})
	}
}

func TestReloadAndStop(t *testing.T) {
	s := newScript(t)
	redis(s, 10) // epochs 0..11
	load := func(int) { s.burst("redis", 100, requestCalls...) }
	s.epoch(10.5, observe.CauseReload) // 12
	s.service("redis", "clone", "setuid", "setgid")
	s.epoch(11, observe.CauseTick) // 13
	s.service("redis", "setgroups", "setuid")
	s.until(13, load) // 14, 15
	s.service("redis", "kill")
	s.until(30, load)                  // 16..32
	s.epoch(30.5, observe.CauseReload) // 33: a second one shows the same
	s.service("redis", "clone", "setuid", "setgid", "setgroups")
	s.until(50, load)                // 34..53
	s.epoch(50.2, observe.CauseStop) // 54
	s.service("redis", "unlink", "exit_group")
	cut := Phases(s.end(50.4, true), Default())

	var got strings.Builder
	for _, p := range cut.Of {
		got.WriteString(p.String()[:2])
	}
	// The first reload is new until 14 s (epoch 15), the second at once; each is followed by the quiet time.
	want := "bo" + strings.Repeat("ru", 11) + strings.Repeat("re", 4+5) + strings.Repeat("ru", 33-21) +
		strings.Repeat("re", 1+5) + strings.Repeat("ru", 54-39) + "st"
	if got.String() != want {
		t.Errorf("phases\n got %s\nwant %s", got.String(), want)
	}
	sets := sets(s.trace, cut)[s.trace.Arch]
	if sets[policy.Run].Has(s.number("setuid")) {
		t.Error("setuid of a reload is allowed while running")
	}
	if !sets[policy.Reload].Has(s.number("kill")) || !sets[policy.Stop].Has(s.number("unlink")) {
		t.Error("a call of the reload or of the stop phase is missing")
	}
}

func TestSpeaker(t *testing.T) {
	tests := []struct {
		name  string
		write func(s *script) observe.Trace
		want  int
	}{
		{"cuts after the first second of load", func(s *script) observe.Trace { redis(s, 20); return s.end(21, false) }, 2},
		{"cuts a service that never served", func(s *script) observe.Trace {
			s.service("nginx", loaderCalls...)
			s.until(30, nil)
			return s.end(31, false)
		}, 1},
		{"has no cut before it was flat", func(s *script) observe.Trace { redis(s, 5); return s.end(6, false) }, 7},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := SpeakerCut(tt.write(newScript(t)), Default()); got.BootEnd != tt.want {
				t.Errorf("boot ends at epoch %d (%s), want %d", got.BootEnd, got.Reason, tt.want)
			}
		})
	}
}
