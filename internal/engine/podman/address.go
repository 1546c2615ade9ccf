// SPDX-License-Identifier: Apache-2.0

package podman

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/whittle-sec/whittle/internal/engine"
)

// network is what is read of one of Podman's.
type network struct {
	Driver string `json:"driver"`
	IPAM   struct {
		Driver string `json:"driver"`
	} `json:"ipam_options"`
}

// askable tells whether it gives a container the address that it asks for: one whose addresses come from elsewhere does not.
func (n network) askable() bool { return n.IPAM.Driver == "host-local" }

// attached are the networks that a container of a private network is connected to; one that is gone is unknown.
func (p *Podman) attached(ctx context.Context, in inspection) (map[string]network, error) {
	out := make(map[string]network)
	if in.HostConfig.NetworkMode != "bridge" {
		return out, nil
	}
	for name := range in.NetworkSettings.Networks {
		var n network
		err := p.client.Get(ctx, "/networks/"+url.PathEscape(name)+"/json", nil, &n)
		if err != nil && !errors.Is(err, engine.ErrUnknownContainer) {
			return nil, fmt.Errorf("ask podman for the network %s: %w", printable(name), err)
		}
		out[name] = n
	}
	return out, nil
}

// attachments of the container that a command line makes again.
func attachments(networks map[string]network, c command) (out []engine.Attachment) {
	for _, name := range slices.Sorted(maps.Keys(networks)) {
		n := networks[name]
		out = append(out, engine.Attachment{Network: printable(name), Driver: printable(n.Driver), Fixed: c.fixes(name), Askable: n.askable()})
	}
	return out
}

// fixes tells whether the address in a network is given: by --ip, for the only one, or by --network NAME:ip=….
func (c command) fixes(name string) bool {
	return slices.ContainsFunc(c.options, func(o setting) bool { return isAddress(o.name) || o.name == "network" && plugOf(o.text).fixes(name) })
}

// isAddress of the options --ip and --network NAME:ip=.
func isAddress(option string) bool { return option == "ip" || option == "ip6" }

// plug is one network of --network NAME[:OPTION,…].
type plug struct {
	name    string
	options []string // "ip=10.0.0.2", "alias=web"
}

func plugOf(text string) plug {
	name, options, _ := strings.Cut(text, ":")
	p := plug{name: name}
	if options != "" {
		p.options = strings.Split(options, ",")
	}
	return p
}

func (p plug) text() string {
	if len(p.options) == 0 {
		return p.name
	}
	return p.name + ":" + strings.Join(p.options, ",")
}

// means tells whether it is this network.
func (p plug) means(name string) bool {
	return p.name == name || p.name == defaultPlug && name == defaultNetwork
}

// defaultPlug is the default network.
const defaultPlug = "bridge"

func (p plug) fixes(name string) bool {
	return p.means(name) && slices.ContainsFunc(p.options, fixesAddress)
}

func fixesAddress(option string) bool {
	key, _, _ := strings.Cut(option, "=")
	return isAddress(key)
}

// addressed as is wished.
func (e *editor) addressed() {
	switch e.changes.Address {
	case engine.AddressAny:
		e.out = slices.DeleteFunc(e.out, func(o setting) bool { return isAddress(o.name) })
		e.plugs(func(p *plug) { p.options = slices.DeleteFunc(p.options, fixesAddress) })
	case engine.AddressKeep:
		if !e.has("network") && len(e.networks) > 0 {
			e.add("network", defaultPlug)
		}
		e.plugs(func(p *plug) {
			for name := range e.networks {
				if p.means(name) {
					p.options = append(p.options, e.asks(name)...)
				}
			}
		})
	}
}

// plugs are changed one by one, also those of --network one,two.
func (e *editor) plugs(change func(*plug)) {
	var out []setting
	for _, o := range e.out {
		if o.name != "network" || e.in.HostConfig.NetworkMode != "bridge" {
			out = append(out, o)
			continue
		}
		texts := []string{o.text}
		if !strings.Contains(o.text, ":") {
			texts = strings.Split(o.text, ",")
		}
		for _, text := range texts {
			p := plugOf(text)
			change(&p)
			o.text = p.text()
			out = append(out, o)
		}
	}
	e.out = out
}

// asks are the options for what the predecessor got in a network, but for what is said already. The hardware address is asked
// for along with the others: neighbours remember which one an address has.
func (e *editor) asks(name string) (options []string) {
	if !e.networks[name].askable() || (command{options: e.out}).fixes(name) {
		return nil
	}
	has := e.in.NetworkSettings.Networks[name]
	for _, text := range []string{has.IPAddress, has.GlobalIPv6Address} {
		addr, err := netip.ParseAddr(text)
		switch {
		case err != nil:
		case addr.Is4():
			options = append(options, "ip="+addr.String())
		default:
			options = append(options, "ip6="+addr.String())
		}
	}
	mac, err := net.ParseMAC(has.MacAddress)
	if len(options) > 0 && err == nil && !e.has("mac-address") {
		options = append(options, "mac="+mac.String())
	}
	return options
}

// addressTaken tells whether a start failed for that, by the words of Podman itself and of CNI's host-local.
func addressTaken(message string) bool {
	return strings.Contains(strings.ToLower(message), "requested ip address") &&
		(strings.Contains(message, "is already allocated") || strings.Contains(message, "is not available"))
}
