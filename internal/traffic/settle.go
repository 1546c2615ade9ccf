// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Settle ends what a killed process's Line left with these sockets, once the other side is gone: its program is detached,
// and who has connections that migrated is woken. Whether the sockets had SO_REUSEPORT before nobody knows: they keep it.
func Settle(ns *NetNS, l *Listeners) error {
	groups, err := groupsOf(l)
	if err == nil {
		err = ns.Do(func() error {
			var failed error
			for _, g := range groups {
				failed = errors.Join(failed, g.settle())
			}
			return failed
		})
	}
	if err != nil {
		return fmt.Errorf("end the steering that a killed process left: %w", err)
	}
	return nil
}

func (g *group) settle() error {
	var failed error
	for _, s := range g.sockets[owner] {
		if s.mptcp {
			// It cannot be asked itself, and does not tell what a program at bind set.
			failed = errors.Join(failed, s.set(unix.SO_REUSEPORT, 1), g.join(detach), s.set(unix.SO_REUSEPORT, s.reuseport))
			continue
		}
		failed = errors.Join(failed, detach(s.fd))
	}
	return errors.Join(failed, g.wake())
}
