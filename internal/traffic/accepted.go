// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// Accepted is the number of established connections at these ports that some process of the namespace has accepted: what
// waits in a queue has no file, and so no inode.
func Accepted(ns *NetNS, ports []netip.AddrPort) (n int, err error) {
	var numbers []uint16
	for _, p := range ports {
		if !slices.Contains(numbers, p.Port()) {
			numbers = append(numbers, p.Port())
		}
	}
	err = ns.Do(func() error {
		for _, port := range numbers {
			for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
				rows, err := diagnose(family, diagEstablished, port)
				if err != nil {
					return err
				}
				for _, r := range rows {
					if r.inode != 0 {
						n++
					}
				}
			}
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("count the connections that were accepted: %w", err)
	}
	return n, nil
}
