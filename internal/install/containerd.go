// SPDX-License-Identifier: Apache-2.0

package install

import (
	"fmt"
)

const (
	containerdConfig  = "/etc/containerd/config.toml"
	restartContainerd = "make containerd read it: sudo systemctl restart containerd (running containers are not touched)"
)

// containerd gets the wrapper as the executable of its default runtime, for Kubernetes (CRI). Other clients name a runtime
// themselves.
//
// Not through a file that config.toml imports: containerd replaces a plugin's whole section by the one in the imported file.
func (o Options) containerd() (plan, error) {
	now, err := o.readConfig(containerdConfig)
	if err != nil {
		return plan{}, err
	}
	c, err := readContainerd(now.contents)
	if err != nil && !o.leaving {
		return plan{}, fmt.Errorf("understand %s: %w", containerdConfig, err)
	}
	real := c.binary
	if real == "" {
		real = "runc"
	}
	if real == wrapperPath("containerd") {
		if real, err = o.wrapped(); err != nil {
			return plan{}, err
		}
		if real == "" {
			real = "runc"
		}
	}
	p := plan{
		targets: append(o.wrapper(real), target{
			path: containerdConfig,
			edit: func(now []byte) ([]byte, error) { return withBinaryName(now, wrapperPath("containerd")) },
			undo: func(now, _ []byte) ([]byte, error) { return withoutBinaryName(now) },
		}),
		installed: []string{
			restartContainerd,
			"clients other than Kubernetes name the runtime themselves: ctr run --runc-binary " + wrapperPath("containerd") + " …",
		},
		uninstalled: []string{restartContainerd},
	}
	if c.noCRI {
		p.installed = append(p.installed, "this containerd has its Kubernetes side (CRI) disabled: only clients that name the runtime are affected")
	}
	return p, nil
}
