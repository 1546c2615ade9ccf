// SPDX-License-Identifier: Apache-2.0

package sockethttp

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/whittle-sec/whittle/internal/engine"
)

// Inspections of Docker and Podman have these parts in common.

// Binding of a published port.
type Binding struct{ HostIP, HostPort string }

// Ports that are published, in a fixed order. The keys are like "80/tcp".
func Ports(bindings map[string][]Binding) (out []engine.PublishedPort) {
	for key, hosts := range bindings {
		number, protocol, _ := strings.Cut(key, "/")
		inside, err := strconv.ParseUint(number, 10, 16)
		if err != nil {
			continue
		}
		for _, host := range hosts {
			port, err := strconv.ParseUint(host.HostPort, 10, 16)
			if err != nil {
				continue
			}
			p := engine.PublishedPort{HostPort: uint16(port), ContainerPort: uint16(inside), Protocol: Printable(cmp.Or(protocol, "tcp"))}
			if addr, err := netip.ParseAddr(host.HostIP); err == nil {
				p.HostIP = addr
			}
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b engine.PublishedPort) int {
		return cmp.Or(cmp.Compare(a.HostPort, b.HostPort), cmp.Compare(a.ContainerPort, b.ContainerPort), cmp.Compare(a.Protocol, b.Protocol), a.HostIP.Compare(b.HostIP))
	})
	return out
}

// Addresses, each once; what is none is left out.
func Addresses(texts ...string) (out []netip.Addr) {
	for _, text := range texts {
		if addr, err := netip.ParseAddr(text); err == nil && !slices.Contains(out, addr) {
			out = append(out, addr)
		}
	}
	return out
}

// Mount of a container, of any type.
type Mount struct {
	Type, Name, Source, Destination string
	RW                              bool
	Options                         []string
}

// Volumes and binds among the mounts.
func Volumes(mounts []Mount) (out []engine.Mount) {
	for _, m := range mounts {
		if m.Type == "bind" || m.Type == "volume" {
			out = append(out, engine.Mount{Volume: Printable(m.Name), Source: Printable(m.Source), Destination: Printable(m.Destination), ReadOnly: !m.RW})
		}
	}
	return out
}

// Healthcheck of a container, or of none.
type Healthcheck struct{ Test []string }

// Set tells whether there is one: an image's may have been switched off.
func (h *Healthcheck) Set() bool {
	return h != nil && len(h.Test) > 0 && h.Test[0] != "" && !strings.EqualFold(h.Test[0], "none")
}

// Anonymous tells whether a volume's name is one that nobody chose. Ids of containers have the same form.
func Anonymous(name string) bool {
	return len(name) == 64 && strings.Trim(name, "0123456789abcdef") == ""
}
