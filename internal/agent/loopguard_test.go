// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/whittle-sec/whittle/internal/loop"
	"github.com/whittle-sec/whittle/internal/oracle"
	"github.com/whittle-sec/whittle/internal/units"
)

// guards are those that stood beside a container.
type guards struct {
	stood, handed []string
	open          int
	ports         [][]netip.AddrPort
	cannotHold    error
}

func (g *guards) stand(_ context.Context, _, container string, ports []netip.AddrPort) (Guard, error) {
	g.stood, g.ports = append(g.stood, container), append(g.ports, ports)
	g.open++
	return g, nil
}

func (g *guards) Hand(ctx context.Context, _ time.Duration, start func(context.Context) (string, error)) (time.Duration, int, error) {
	g.open--
	if g.cannotHold != nil {
		return 0, 0, g.cannotHold
	}
	id, err := start(ctx)
	g.handed = append(g.handed, id)
	return 0, 0, err
}

func (g *guards) Close() error {
	g.open--
	return nil
}

// Who waits beside a unit's oracle goes to production when systemd has brought that back, and nobody before.
func TestGuardByUnits(t *testing.T) {
	r, h := newHost(t)
	g := &guards{}
	r.a.Moving.Stand = g.stand
	r.asks("sync")
	if !r.turn(loop.InOracle, time.Minute) {
		t.Fatalf("no oracle serves: %q", h.switches)
	}
	for range 10 { // it is looked at while it serves
		r.now.Add(int64(lookEvery))
		r.d.step(r.ctx)
	}
	if want := []string{"bbbb"}; !slices.Equal(g.handed, want) || g.open != 1 {
		t.Errorf("handed to %q, want %q; %d stand", g.handed, want, g.open)
	}
	h.set("web-oracle.service", units.Status{State: "failed", Result: "exit-code", Exit: oracle.AbortCode})
	h.set("web.service", units.Status{State: "active"})
	if !r.turn(loop.Production, time.Minute) {
		t.Fatalf("it does not end: %q", h.switches)
	}
	if want := []string{"bbbb", production}; !slices.Equal(g.handed, want) || g.open != 0 {
		t.Errorf("handed to %q, want %q; %d stand", g.handed, want, g.open)
	}
	if want := []string{production, "bbbb"}; !slices.Equal(g.stood, want) {
		t.Errorf("stood beside %q, want %q", g.stood, want)
	}
}

// Where nobody can be made to wait, the other is started all the same.
func TestGuardCannotHold(t *testing.T) {
	r := newLoopRig(t)
	g := &guards{cannotHold: errors.New("it is another's address")}
	r.a.Moving.Stand = g.stand
	r.asks("sync")
	if !r.turn(loop.InOracle, time.Minute) || g.open != 1 {
		t.Fatalf("no oracle serves: %q, %d stand", r.e.verbs, g.open)
	}
	r.reaches("sync")
	if !r.turn(loop.Production, time.Minute) {
		t.Fatalf("production does not come back: %q", r.e.verbs)
	}
	if got := r.records(); len(got) != 1 || got[0].Return != "" || g.open != 0 {
		t.Errorf("records %+v; %d stand", got, g.open)
	}
}

// When production does not come back, nobody waits for it without an end.
func TestGuardGivesUp(t *testing.T) {
	r := newLoopRig(t)
	g := &guards{}
	r.a.Moving.Stand = g.stand
	r.asks("sync")
	if !r.turn(loop.InOracle, time.Minute) {
		t.Fatalf("no oracle serves: %q", r.e.verbs)
	}
	r.e.refuse["stop"] = errors.New("the engine is away")
	if r.turn(loop.Production, time.Minute) || g.open != 0 {
		t.Errorf("%d stand", g.open)
	}
}

// What somebody listens on in the oracle does not keep production away.
func TestOracleListens(t *testing.T) {
	r := newLoopRig(t)
	g := &guards{}
	r.a.Moving.Stand = g.stand
	r.asks("sync")
	has := []netip.AddrPort{netip.MustParseAddrPort("[::]:80")}
	site := r.d.where()
	site.Ports = has
	r.d.at(site)
	if !r.turn(loop.InOracle, time.Minute) {
		t.Fatalf("no oracle serves: %q", r.e.verbs)
	}
	if len(g.ports) != 1 || !slices.Equal(g.ports[0], has) {
		t.Errorf("it stands at %v, want %v", g.ports, has)
	}
	if got := r.d.ports(r.d.where().Oracle); !slices.Equal(got, has) {
		t.Errorf("production has to listen on %v, want %v", got, has)
	}
	if got := r.d.ports(production); got != nil {
		t.Errorf("the oracle has to listen on %v, want all", got)
	}
}
