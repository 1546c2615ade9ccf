// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"errors"
	"fmt"
)

// Settle ends what a killed process's Line left with these sockets, once the other side is gone: its program is detached,
// and who has connections that migrated is woken. Whether the sockets had SO_REUSEPORT before nobody knows: they keep it.
func Settle(l *Listeners) error {
	err := l.open(func(s *socket) error {
		if s.mptcp {
			return s.wake() // of a program that holds no sockets; the next Form replaces it
		}
		return errors.Join(detach(s.fd), s.wake())
	})
	if err != nil {
		return fmt.Errorf("end the steering that a killed process left: %w", err)
	}
	return nil
}
