// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"errors"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/renew"
)

// killEngine's service; containers go on.
func (b *renewBed) killEngine(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Errorf("kill podman's service: %v", err)
	}
	for { // until nobody answers at its socket
		conn, err := net.Dial("unix", b.env.Socket())
		if err != nil {
			return
		}
		conn.Close()
	}
}

// startEngine's service again, until the test ends or end is called.
func (b *renewBed) startEngine(t *testing.T) (pid int, end func()) {
	t.Helper()
	cmd := b.env.Command(context.WithoutCancel(t.Context()), "system", "service", "--time", "0", "unix://"+b.env.Socket())
	if err := cmd.Start(); err != nil {
		t.Error(err)
		return 0, func() {}
	}
	return cmd.Process.Pid, func() {
		_ = cmd.Process.Kill() // it may have been killed
		_ = cmd.Wait()
	}
}

// The engine's service is killed when a step begins, and is there again a moment later: the renewal goes on.
func TestRenewalWhileTheEngineIsAway(t *testing.T) {
	b := upRenew(t, true)
	pid := b.env.Service.PID
	clients := b.clients(t)
	for _, step := range []renew.Step{renew.StepMake, renew.StepInit, renew.StepStop, renew.StepStart, renew.StepListen, renew.StepTurn, renew.StepAway} {
		t.Run(string(step), func(t *testing.T) {
			back := make(chan struct{})
			r := b.runner()
			r.Tell = func(d renew.Done) {
				if d.Step == step && d.State == renew.Begins {
					b.killEngine(t, pid)
					go func() {
						defer close(back)
						time.Sleep(300 * time.Millisecond) // as long as systemd takes
						var end func()
						pid, end = b.startEngine(t)
						b.atEnd(end)
					}()
				}
			}
			result := renewed(t, r, b.request("", ""))
			<-back
			if result.Outcome != renew.Renewed {
				t.Errorf("result: %s", describe(result))
			}
			b.holds(t, "second")
		})
	}
	if stats := clients.Stop(); stats.Failed > 0 {
		t.Error(stats)
	}
	b.down(t)
}

// The engine's service is killed when a step begins, and does not come back: what is said is what holds, and Recover makes the
// rest of it when the engine answers again.
func TestRenewalWithoutTheEngine(t *testing.T) {
	for _, tt := range []struct {
		strategy renew.Strategy
		step     renew.Step
		outcome  renew.Outcome
		who      string // serves meanwhile; "" nobody
		after    string // serves after Recover
	}{
		{renew.Overlap, renew.StepStart, renew.RolledBack, "first", "first"},
		{renew.Overlap, renew.StepDrain, renew.Renewed, "second", "second"},
		{renew.Hold, renew.StepStop, renew.RolledBack, "first", "first"},
		{renew.Hold, renew.StepStart, renew.Broken, "", "first"},
		{renew.Hold, renew.StepAway, renew.Renewed, "second", "second"},
	} {
		t.Run(string(tt.strategy)+" "+string(tt.step), func(t *testing.T) {
			b := upRenew(t, tt.strategy == renew.Hold)
			r := b.runner()
			r.Away = 200 * time.Millisecond
			r.Tell = func(d renew.Done) {
				if d.Step == tt.step && d.State == renew.Begins {
					b.killEngine(t, b.env.Service.PID)
				}
			}
			result := renewed(t, r, b.request("", tt.strategy))
			if result.Outcome != tt.outcome || result.Hint == "" || (result.Serving == "") != (tt.who == "") {
				t.Errorf("want %s, and what is left to do: %s", tt.outcome, describe(result))
			}
			body, err := b.get("/")
			if tt.who == "" && !errors.Is(err, syscall.ECONNREFUSED) || tt.who != "" && !strings.Contains(body, tt.who) {
				t.Errorf("%q serves, %v; want %q", body, err, tt.who)
			}
			if _, err := r.Recover(t.Context()); !errors.Is(err, engine.ErrUnavailable) && err != nil {
				t.Errorf("recover without the engine: %v", err)
			}
			_, end := b.startEngine(t)
			b.atEnd(end)
			eventually(t, "the engine answers", func() (bool, string) {
				_, err := b.engine.List(t.Context())
				return err == nil, ""
			})
			if results, err := b.runner().Recover(t.Context()); err != nil || len(results) != 1 || results[0].Outcome == renew.Broken {
				t.Errorf("recover: %s, %v", describe(results), err)
			}
			b.holds(t, tt.after)
			b.down(t)
		})
	}
}

// atEnd of the test, before the containers are cleared away.
func (b *renewBed) atEnd(f func()) { b.ends = append(b.ends, f) }

// down with the services that were started here, once their containers are gone.
func (b *renewBed) down(t *testing.T) {
	t.Helper()
	b.clear(t)
	for _, end := range b.ends {
		end()
	}
}
