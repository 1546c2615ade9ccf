// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"

	"golang.org/x/sys/unix"
)

// network of a service's container.
type network struct {
	name, suffix string
	host         string // where clients find it
	listen       string // where it listens
}

var (
	ofHost = network{name: "the host's", host: "127.0.0.1", listen: "127.0.0.1"}
	// ofItsOwn is behind a bridge, with a published port. The address is one of this host's that is no loopback address: these
	// are never sent to a bridge.
	ofItsOwn = network{name: "its own", suffix: "-private", host: "192.0.2.1", listen: "0.0.0.0"}
)

// options of `podman create`.
func (n network) options(port string) []string {
	if n == ofHost {
		return []string{"--network", "host"}
	}
	return []string{"--network", "podman", "--publish", n.host + ":" + port + ":" + port}
}

const alone = "WHITTLE_EVAL_ALONE"

// enterNetwork has this program run in a network namespace of its own, with the bridge, its rules, and all that it starts. With the
// last of these it is gone.
func enterNetwork() error {
	if os.Getenv(alone) != "" {
		return furnishNetwork()
	}
	runtime.LockOSThread() // whose network namespace is what the new program has
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("make a network namespace: %w; it needs root", err)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	return fmt.Errorf("start again: %w", unix.Exec(self, os.Args, append(os.Environ(), alone+"=1")))
}

func furnishNetwork() error {
	for _, args := range [][]string{{"link", "set", "lo", "up"}, {"address", "add", ofItsOwn.host + "/32", "dev", "lo"}} {
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %v: %w: %s", args, err, out)
		}
	}
	// Thousands of new connections a second, from one address to one: else the ports are used up by those that have ended.
	return errors.Join(
		os.WriteFile("/proc/sys/net/ipv4/tcp_tw_reuse", []byte("1"), 0),
		os.WriteFile("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_time_wait", []byte("1"), 0))
}
