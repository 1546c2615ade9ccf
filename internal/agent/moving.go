// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"net/netip"
	"time"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/loop"
	"github.com/whittle-sec/whittle/internal/oracle"
	"github.com/whittle-sec/whittle/internal/renew"
)

// Moving is what an agent needs to have one container take over from another. Without it there are neither time loops nor
// renewals by the agent itself.
type Moving struct {
	// Makers by the names of their engines.
	Makers map[string]engine.Maker
	// Move has a process of its own make a renewal, which the agent's death does not end, and tells of its steps; see renew.RunJob.
	Move func(ctx context.Context, engine string, q renew.Request, tell func(renew.Done)) (renew.Result, error)
	// Stand beside a container that serves, at these ports or at all (nil), so that who connects waits when it ends by itself; nil:
	// nobody waits.
	Stand func(ctx context.Context, engine, container string, ports []netip.AddrPort) (Guard, error)
	// Recover finishes or undoes what killed ones left, and tells of it, and whether one of these containers' goes on.
	Recover func(ctx context.Context, engine string, containers ...string) (done []renew.Result, busy bool, err error)
	// Profiles that renewals were given which are under way, or were cut off.
	Profiles func() ([]string, error)
	// Oracles is the directory where oracles write their reports. It is made when there is none.
	Oracles string
	// Units is the directory where the oracles that have units write theirs, each below its unit's name.
	Units string
	// Systemd is who switches between units; nil asks systemctl.
	Systemd Systemd
	// Limits of what time loops may cost.
	Limits loop.Limits
	// Armed reports whether an oracle has its hardening; nil looks at its processes. dir is what was mounted into it.
	Armed func(c engine.Container, spec oracle.Spec, dir string) error
	// Renew containers without being asked, unless their label says otherwise.
	Renew bool
}

// Guard is a renew.Guard.
type Guard interface {
	Hand(ctx context.Context, patience time.Duration, start func(context.Context) (container string, err error)) (gap time.Duration, held int, err error)
	Close() error
}

// maker of an engine's containers; nil when there is none.
func (a *Agent) maker(engine string) engine.Maker {
	if a.Moving == nil {
		return nil
	}
	return a.Moving.Makers[engine]
}
