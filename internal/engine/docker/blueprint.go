// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/engine/sockethttp"
)

const (
	stopDefault = 10 * time.Second // Docker's, where the container has none
	unitLabel   = "PODMAN_SYSTEMD_UNIT"
)

// Blueprint of a container. Its problems are those of a successor without changes: a change may do away with one.
func (d *Docker) Blueprint(ctx context.Context, id string) (engine.Blueprint, error) {
	doing := "see what docker's container " + printable(id) + " is made of"
	in, text, err := d.document(ctx, id)
	if err != nil {
		return engine.Blueprint{}, fmt.Errorf("%s: %w", doing, err)
	}
	c, err := d.container(ctx, doing, in)
	if err != nil {
		return engine.Blueprint{}, err
	}
	b := engine.Blueprint{
		Container:      c,
		Ports:          sockethttp.Ports(in.published()),
		Addresses:      in.addresses(),
		Volumes:        sockethttp.Volumes(in.Mounts),
		SystemdUnit:    printable(in.Config.Labels[unitLabel]),
		AutoRemove:     in.HostConfig.AutoRemove,
		RestartPolicy:  printable(in.HostConfig.RestartPolicy.Name),
		HasHealthcheck: in.Config.Healthcheck.Set(),
		Env:            in.Config.Env,
		StopTimeout:    stopDefault,
	}
	if in.Config.StopTimeout != nil {
		b.StopTimeout = time.Duration(min(*in.Config.StopTimeout, 1<<30)) * time.Second
	}
	if b.Network, err = d.network(ctx, in); err != nil {
		return engine.Blueprint{}, fmt.Errorf("%s: %w", doing, err)
	}
	b.NetworkKept = b.Network != engine.NetworkPrivate
	if b.Networks, err = d.attachments(ctx, in); err != nil {
		return engine.Blueprint{}, fmt.Errorf("%s: %w", doing, err)
	}
	if _, err := d.draft(ctx, in, text, engine.Changes{}); err != nil {
		var p problems
		if !errors.As(err, &p) {
			return engine.Blueprint{}, fmt.Errorf("%s: %w", doing, err)
		}
		b.Problems = p
	}
	return b, nil
}

func (d *Docker) network(ctx context.Context, in inspection) (engine.NetworkMode, error) {
	mode := in.HostConfig.NetworkMode
	switch {
	case mode == "host", mode == "none":
		return engine.NetworkMode(mode), nil
	}
	other, ok := strings.CutPrefix(mode, "container:")
	if !ok {
		return engine.NetworkPrivate, nil
	}
	owner, err := d.inspection(ctx, other)
	if err != nil {
		return "", fmt.Errorf("see whose network it has: %w", err)
	}
	return engine.NetworkMode("container:" + owner.ID), nil
}

// published ports: those that were left to chance are known while it runs.
func (in inspection) published() map[string][]sockethttp.Binding {
	out := maps.Clone(in.HostConfig.PortBindings)
	if out == nil {
		out = make(map[string][]sockethttp.Binding)
	}
	for key, said := range out {
		if slices.ContainsFunc(said, func(b sockethttp.Binding) bool { return b.HostPort == "" || b.HostPort == "0" }) && len(in.NetworkSettings.Ports[key]) > 0 {
			out[key] = found(in.NetworkSettings.Ports[key], said)
		}
	}
	if in.HostConfig.PublishAllPorts {
		for key, got := range in.NetworkSettings.Ports {
			if _, ok := out[key]; !ok && len(got) > 0 {
				out[key] = found(got, nil)
			}
		}
	}
	return out
}

// found are the ports that were chosen: one for IPv4 and one for IPv6, often the same, where every address was meant.
func found(got, said []sockethttp.Binding) (out []sockethttp.Binding) {
	for _, b := range got {
		if b.HostIP == "0.0.0.0" || b.HostIP == "::" {
			b.HostIP = ""
			if len(said) == 1 {
				b.HostIP = said[0].HostIP
			}
		}
		if !slices.Contains(out, b) {
			out = append(out, b)
		}
	}
	return out
}

func (in inspection) addresses() []netip.Addr {
	var texts []string
	for _, name := range slices.Sorted(maps.Keys(in.NetworkSettings.Networks)) {
		e := in.NetworkSettings.Networks[name]
		texts = append(texts, e.IPAddress, e.GlobalIPv6Address)
	}
	return sockethttp.Addresses(texts...)
}
