// SPDX-License-Identifier: Apache-2.0

package renew

import (
	"net/netip"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/traffic"
)

// Facts are what a choice needs to know beyond the blueprint.
type Facts struct {
	Listeners []netip.AddrPort // TCP
	Unmovable []traffic.Unmovable
	Inherited bool   // the listening sockets came from a service manager (LISTEN_FDS)
	NoTraffic string // why listening sockets cannot be moved here; "": they can
	NoGate    string // why connections cannot be kept waiting at the host
	Gate      string // how they would be
}

// Choose how a container is renewed. It decides by what it is given, and asks nobody.
func Choose(b engine.Blueprint, f Facts, r Request) Plan {
	return Plan{Container: b.Name, ID: b.ID, Refused: "not written yet"}
}
