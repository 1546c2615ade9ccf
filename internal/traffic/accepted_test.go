// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"net"
	"net/netip"
	"testing"
)

// What was accepted and goes on is counted; what waits, what has ended and what is at another port is not.
func TestAccepted(t *testing.T) {
	ns := space(t)
	for _, at := range []string{"127.0.0.1:8123", "[::1]:8123"} {
		t.Run(at, func(t *testing.T) {
			var listens, other net.Listener
			must(t, ns.Do(func() (err error) {
				if listens, err = net.Listen("tcp", at); err != nil {
					return err
				}
				other, err = net.Listen("tcp", netip.AddrPortFrom(netip.MustParseAddrPort(at).Addr(), 8124).String())
				return err
			}))
			defer listens.Close()
			defer other.Close()
			count := func() (int, error) { return Accepted(ns, []netip.AddrPort{netip.MustParseAddrPort(at)}) }
			connect := func(to net.Listener) (conn net.Conn) {
				must(t, ns.Do(func() (err error) { conn, err = net.Dial("tcp", to.Addr().String()); return err }))
				return conn
			}
			defer connect(other).Close()
			elsewhere, err := other.Accept()
			must(t, err)
			defer elsewhere.Close()
			client := connect(listens)
			until(t, 0, count)
			served, err := listens.Accept()
			must(t, err)
			until(t, 1, count)
			must(t, client.Close())
			must(t, served.Close())
			until(t, 0, count)
		})
	}
}
