// SPDX-License-Identifier: Apache-2.0

// Package gate keeps new connections waiting at the host while the container they are for is away: the first packet
// of each (SYN) is held by the kernel's packet queue before connection tracking and address translation see it, and
// goes on when the gate opens, through whatever translation there is by then. It knows no container and no engine,
// and never touches a packet of an established connection, another destination, or a rule that is not its own.
package gate

import (
	"context"
	"errors"
	"net/netip"
)

// Destination is where connections that are to wait go.
type Destination struct {
	Addr netip.Addr // unspecified or invalid: any address of this host
	Port uint16
}

// Gate is shut until Open.
type Gate struct{}

// Shut makes new TCP connections to these destinations wait, in the caller's network namespace, until the gate is
// opened or ctx ends.
func Shut(ctx context.Context, to []Destination) (*Gate, error) {
	return nil, errors.New("shutting the gate: not there yet")
}

// Open lets what waits go on and removes the rules. It may be called again.
func (g *Gate) Open() error { return nil }

// Waited tells how many connections were held, and how many packets were dropped because too many were.
func (g *Gate) Waited() (held, dropped uint64) { return 0, 0 }

// Clean removes what gates of processes that are dead left behind.
func Clean(ctx context.Context) error { return nil }

// Supported tells how connections would be kept waiting here.
func Supported() (how string, err error) { return "", errors.New("keeping connections waiting: not there yet") }
