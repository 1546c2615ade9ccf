// SPDX-License-Identifier: Apache-2.0

package podman

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/engine/sockethttp"
)

const (
	stopDefault = 10 * time.Second // Podman's, where the container has none
	unitLabel   = "PODMAN_SYSTEMD_UNIT"
)

// engineEnv are variables that Podman and the runtime set.
var engineEnv = []string{"HOSTNAME", "HOME", "container"}

// Blueprint of a container. Its problems are those of a successor without changes: a change may do away with one.
func (p *Podman) Blueprint(ctx context.Context, id string) (engine.Blueprint, error) {
	doing := "see what podman's container " + printable(id) + " is made of"
	in, err := p.inspection(ctx, id)
	if err != nil {
		return engine.Blueprint{}, fmt.Errorf("%s: %w", doing, err)
	}
	c, err := p.container(ctx, doing, in)
	if err != nil {
		return engine.Blueprint{}, err
	}
	b := engine.Blueprint{
		Container:      c,
		Ports:          sockethttp.Ports(in.HostConfig.PortBindings),
		Addresses:      in.addresses(),
		Volumes:        in.volumes(),
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
	if b.Network, err = p.network(ctx, in); err != nil {
		return engine.Blueprint{}, fmt.Errorf("%s: %w", doing, err)
	}
	b.NetworkKept = b.Network != engine.NetworkPrivate
	again, problems, err := p.successor(ctx, in, engine.Changes{})
	if b.Problems = problems; err != nil {
		b.Problems = []string{printable(err.Error())}
	}
	networks, err := p.attached(ctx, in)
	if err != nil {
		return engine.Blueprint{}, fmt.Errorf("%s: %w", doing, err)
	}
	b.Networks = attachments(networks, again)
	return b, nil
}

// network tells a pod's namespace from another container's: a pod's own container keeps it.
func (p *Podman) network(ctx context.Context, in inspection) (engine.NetworkMode, error) {
	mode := in.HostConfig.NetworkMode
	switch {
	case mode == "host", mode == "none", strings.HasPrefix(mode, "ns:"):
		return engine.NetworkMode(mode), nil
	}
	other, ok := strings.CutPrefix(mode, "container:")
	if !ok {
		return engine.NetworkPrivate, nil
	}
	if in.Pod == "" {
		return engine.NetworkMode(mode), nil
	}
	owner, err := p.inspection(ctx, other)
	if err != nil {
		return "", fmt.Errorf("see whose network it has: %w", err)
	}
	if owner.IsInfra && owner.Pod == in.Pod {
		return engine.NetworkMode("pod:" + in.Pod), nil
	}
	return engine.NetworkMode("container:" + owner.ID), nil
}

func (in inspection) addresses() []netip.Addr {
	texts := []string{in.NetworkSettings.IPAddress, in.NetworkSettings.GlobalIPv6Address}
	for _, name := range slices.Sorted(maps.Keys(in.NetworkSettings.Networks)) {
		a := in.NetworkSettings.Networks[name]
		texts = append(texts, a.IPAddress, a.GlobalIPv6Address)
	}
	return sockethttp.Addresses(texts...)
}

// volumes, and a root file system that is no image and that a successor writes to as well.
func (in inspection) volumes() []engine.Mount {
	out := sockethttp.Volumes(in.Mounts)
	if _, fresh := strings.CutSuffix(in.Rootfs, ":O"); in.Rootfs != "" && !fresh {
		out = append(out, engine.Mount{Source: printable(in.Rootfs), Destination: "/"})
	}
	return out
}

// picture is what is read of an image.
type picture struct {
	ID     string `json:"Id"`
	Config struct {
		Env    []string
		Labels map[string]string
	}
}

func (p *Podman) picture(ctx context.Context, name string) (picture, error) {
	var out picture
	err := p.client.Get(ctx, "/images/"+url.PathEscape(name)+"/json", nil, &out)
	return out, err
}
