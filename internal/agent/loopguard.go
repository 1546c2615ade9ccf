// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/whittle-sec/whittle/internal/engine"
)

// falls is how long an oracle takes to end after its report was written.
const falls = 500 * time.Millisecond

// stand beside a container that may end at any moment, an oracle by its hardening: who connects from then on waits for the other.
func (d *driver) stand(ctx context.Context, container string) {
	if d.guarded || d.agent.Moving.Stand == nil {
		return
	}
	d.guarded = true
	ctx, cancel := context.WithTimeout(ctx, engineTime)
	defer cancel()
	g, err := d.agent.Moving.Stand(ctx, d.where().Engine, container, d.ports(container))
	if err != nil {
		d.agent.Log.Info("connections are refused when it ends by itself", "container", container, "err", err)
		return
	}
	d.guard = g
}

// ports that are needed of a container: of the oracle those that production had, as whoever got into it may listen on others; nil: all.
func (d *driver) ports(container string) []netip.AddrPort {
	site := d.where()
	if container == site.Production || len(site.Ports) == 0 {
		return nil
	}
	return site.Ports
}

// fall: an oracle that has aborted is about to end, and no renewal is begun with it. One of several processes goes on without it.
func (d *driver) fall(ctx context.Context, maker engine.Maker, oracle string) {
	d.mu.Lock()
	record, _ := d.machine.Record()
	d.mu.Unlock()
	if d.guard == nil || record.Report == nil {
		return
	}
	for end := time.Now().Add(falls); time.Now().Before(end) && ctx.Err() == nil; wait(ctx, falls/20) {
		if c, err := inspect(ctx, maker, oracle); err != nil || !c.State.Alive() || !listens(c) {
			return
		}
	}
}

// handOver what waits to a container that start starts, if anything can wait. Nobody stands beside it then, whatever came of it.
func (d *driver) handOver(ctx context.Context, patience time.Duration, start func(context.Context) (container string, err error)) error {
	g := d.guard
	d.guard, d.guarded = nil, false
	if g == nil {
		_, err := start(ctx)
		return err
	}
	began := false
	gap, held, err := g.Hand(ctx, patience, func(ctx context.Context) (string, error) {
		began = true
		return start(ctx)
	})
	switch {
	case err == nil:
		d.lose(fmt.Sprintf("who connected while neither served waited: %s since that was noticed, %d at once", gap.Round(time.Millisecond), held))
	case !began && ctx.Err() == nil:
		d.lose("connections were refused, as nobody could be made to wait: " + err.Error())
		_, err = start(ctx)
	}
	return err
}

// unguard: nobody waits any more.
func (d *driver) unguard() {
	g := d.guard
	d.guard, d.guarded = nil, false
	if g == nil {
		return
	}
	if err := g.Close(); err != nil {
		d.agent.Log.Warn("step aside from an oracle", "err", err)
	}
}
