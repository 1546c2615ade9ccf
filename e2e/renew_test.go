// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/whittle-sec/whittle/internal/renew"
)

// Under load of new connections nothing is refused and nothing fails, renewal after renewal.
func TestRenewedUnderLoad(t *testing.T) {
	for _, tt := range []struct {
		name string
		data bool
		want renew.Strategy
	}{
		{"overlap", false, renew.Overlap},
		{"hold", true, renew.Hold},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := upRenew(t, tt.data)
			clients := b.clients(t)
			const times = 3
			for range times {
				result := renewed(t, b.runner(), b.request("", ""))
				if result.Outcome != renew.Renewed || result.Strategy != tt.want || result.Serving != result.Successor {
					t.Fatalf("result: %s", describe(result))
				}
				t.Logf("gap %v, %d waited, took %v", result.Gap, result.Held, result.Took)
			}
			stats := clients.Stop()
			t.Log(stats)
			if stats.Failed > 0 || stats.Requests < 100 {
				t.Errorf("%v; want none to fail, of many", stats)
			}
			b.holds(t, "second")
		})
	}
}

// A request that is under way when the predecessor is told to stop is answered by it.
func TestRenewalFinishesRequests(t *testing.T) {
	for _, s := range []renew.Strategy{renew.Overlap, renew.Hold} {
		t.Run(string(s), func(t *testing.T) {
			b := upRenew(t, false)
			type answer struct {
				body string
				err  error
			}
			answered := make(chan answer, 1)
			go func() {
				body, err := b.get("/?ms=4000")
				answered <- answer{body, err}
			}()
			time.Sleep(100 * time.Millisecond) // the request is on its way long before the renewal stops anything
			result := renewed(t, b.runner(), b.request("", s))
			if a := <-answered; a.err != nil || !strings.Contains(a.body, "first") {
				t.Errorf("the request was answered %q, %v; want it from the predecessor", a.body, a.err)
			}
			if result.Outcome != renew.Renewed {
				t.Errorf("result: %s", describe(result))
			}
			b.holds(t, "second")
		})
	}
}

// A successor that does not get ready goes, and the predecessor serves, with the reason told and no request failed.
func TestRenewalRollsBack(t *testing.T) {
	for _, tt := range []struct {
		name, mode string
		ready      renew.Ready
		why        string
	}{
		{"exits at once", "exit", renew.Ready{}, "status 3; it wrote: no licence"},
		{"never listens", "deaf", renew.Ready{}, "does not listen on"},
		{"accepts nothing", "mute", renew.Ready{}, "accepts no connections"},
		{"is not healthy", "sick", renew.Ready{HTTP: "/healthz"}, "/healthz is answered with 503"},
		{"a command fails", "", renew.Ready{Command: "echo no $WHITTLE_SUCCESSOR; exit 1"}, "the command: exit status 1: no "},
	} {
		for _, s := range []renew.Strategy{renew.Overlap, renew.Hold, renew.Restart} {
			if s == renew.Restart && tt.mode == "mute" {
				continue // others connect to it at once: that somebody is not accepted says nothing then
			}
			t.Run(tt.name+" by "+string(s), func(t *testing.T) {
				b := upRenew(t, s != renew.Overlap)
				clients := b.clients(t)
				q := b.request(tt.mode, s)
				if q.Ready = tt.ready; tt.mode != "exit" {
					q.Patience = late
				}
				result := renewed(t, b.runner(), q)
				stats := clients.Stop()
				if result.Outcome != renew.RolledBack || result.Serving != b.id || !strings.Contains(result.Why, tt.why) {
					t.Errorf("want it rolled back, because %q: %s", tt.why, describe(result))
				}
				if s != renew.Restart && stats.Failed > 0 {
					t.Errorf("%v; want none to fail", stats)
				}
				b.holds(t, "first")
			})
		}
	}
}

// Whoever gives a renewal up before the successor has the connections gets the predecessor back; after, the renewal is finished.
func TestRenewalIsGivenUp(t *testing.T) {
	for _, tt := range []struct {
		at   renew.Step
		want renew.Outcome
		who  string
	}{{renew.StepStart, renew.RolledBack, "first"}, {renew.StepTurn, renew.Renewed, "second"}} {
		t.Run(string(tt.at), func(t *testing.T) {
			b := upRenew(t, true)
			clients := b.clients(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			r := b.runner()
			r.Tell = func(d renew.Done) {
				if d.Step == tt.at && d.State == renew.Begins {
					cancel()
				}
			}
			result, err := r.Run(ctx, b.request("", ""))
			if err != nil || result.Outcome != tt.want {
				t.Errorf("%v, %s", err, describe(result))
			}
			if stats := clients.Stop(); stats.Failed > 0 {
				t.Error(stats)
			}
			b.holds(t, tt.who)
		})
	}
}
