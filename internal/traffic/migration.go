// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"bytes"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// migrationSetting of a network namespace: whether what waits in a socket that closes goes to another of its group.
const migrationSetting = "/proc/sys/net/ipv4/tcp_migrate_req"

// migration sets it, and gives what sets it back. One line at a time may need it in one namespace, or the first that
// ends would take it from the others; a name that the kernel frees when we are killed sees to that. The setting then
// stays, which harms nobody.
func (n *NetNS) migration() (func() error, error) {
	lock := -1
	var before []byte
	err := n.Do(func() error {
		var err error
		if lock, err = unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		if err = unix.Bind(lock, &unix.SockaddrUnix{Name: "@whittle/traffic/migration"}); err != nil {
			if errors.Is(err, unix.EADDRINUSE) {
				return errors.New("another service of this network namespace, which listens with MPTCP, is being moved")
			}
			return err
		}
		if before, err = os.ReadFile(migrationSetting); err != nil {
			return fmt.Errorf("%w: %w (Linux 5.14 has it)", ErrUnsupported, err)
		}
		return os.WriteFile(migrationSetting, []byte("1\n"), 0)
	})
	if err != nil {
		if lock >= 0 {
			unix.Close(lock)
		}
		return nil, fmt.Errorf("have waiting connections migrate: %w", err)
	}
	return func() error {
		defer unix.Close(lock)
		if string(bytes.TrimSpace(before)) == "1" {
			return nil
		}
		if err := n.Do(func() error { return os.WriteFile(migrationSetting, before, 0) }); err != nil {
			return fmt.Errorf("put %s back: %w", migrationSetting, err)
		}
		return nil
	}, nil
}
