// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// Destination is where connections that are to wait go.
type Destination struct {
	Addr netip.Addr // unspecified (of either family) or the zero Addr: any address of this host
	Port uint16
}

// maxDestinations bounds the rules: a container may publish a range of ports.
const maxDestinations = 1024

// normal destinations are sorted and distinct, with the zero Addr for any address of this host.
func normal(to []Destination) ([]Destination, error) {
	if len(to) == 0 {
		return nil, errors.New("there is no destination to keep connections from")
	}
	if len(to) > maxDestinations {
		return nil, fmt.Errorf("%d destinations are more than %d", len(to), maxDestinations)
	}
	to = slices.Clone(to)
	for i, d := range to {
		if d.Port == 0 {
			return nil, fmt.Errorf("destination %s has no port", d.Addr)
		}
		if d.Addr = d.Addr.Unmap().WithZone(""); d.Addr.IsUnspecified() {
			d.Addr = netip.Addr{}
		}
		to[i] = d
	}
	slices.SortFunc(to, func(a, b Destination) int {
		return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(a.Port, b.Port))
	})
	return slices.Compact(to), nil
}

// matches tells whether a packet to this address is for one of the destinations. Whether the address is of this host
// the rule has decided.
func matches(to []Destination, dst netip.AddrPort) bool {
	return slices.ContainsFunc(to, func(d Destination) bool {
		return d.Port == dst.Port() && (!d.Addr.IsValid() || d.Addr == dst.Addr())
	})
}
