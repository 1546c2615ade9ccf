// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/engine/sockethttp"
)

// connectWithin is what a network may take.
const connectWithin = 60 * time.Second

// defaultNetwork has no names, and takes no settings.
const defaultNetwork = "bridge"

// shared tells whether a network mode is no network of the container's own.
func shared(mode string) bool {
	return mode == "host" || mode == "none" || strings.HasPrefix(mode, "container:")
}

// attachments to the networks of a container that has one of its own.
func (d *Docker) attachments(ctx context.Context, in inspection) (out []engine.Attachment, err error) {
	if shared(in.HostConfig.NetworkMode) {
		return nil, nil
	}
	for _, name := range slices.Sorted(maps.Keys(in.NetworkSettings.Networks)) {
		var n struct{ Driver string }
		err := d.client.Get(ctx, "/networks/"+url.PathEscape(name), nil, &n)
		if err != nil && !errors.Is(err, engine.ErrUnknownContainer) {
			return nil, fmt.Errorf("ask docker for the network %s: %w", printable(name), err)
		}
		out = append(out, engine.Attachment{
			Network: printable(name), Driver: printable(n.Driver),
			Fixed:   in.NetworkSettings.Networks[name].IPAMConfig != ipamConfig{},
			Askable: name != defaultNetwork, // if its subnet was configured, which its document does not tell
		})
	}
	return out, nil
}

// endpoints are the network that the container is made with, and those it is connected to then; and what some of them are to be
// asked for.
func endpoints(in inspection, doc object, address engine.Addressing) (first map[string]any, rest, ask map[string]object) {
	first, rest, ask = map[string]any{}, map[string]object{}, map[string]object{}
	mode := in.HostConfig.NetworkMode
	if shared(mode) {
		return first, rest, ask
	}
	networks := doc.object("NetworkSettings").object("Networks")
	for name := range networks {
		from, to := networks.object(name), object{}
		for _, key := range []string{"IPAMConfig", "Links", "DriverOpts", "GwPriority"} {
			if v, ok := from[key]; ok && v != nil {
				to[key] = v
			}
		}
		to["Aliases"] = slices.DeleteFunc(from.list("Aliases"), func(v any) bool {
			s, _ := v.(string)
			return len(s) >= 12 && strings.HasPrefix(in.ID, s)
		})
		// Others find it by its name, also before its successor is called so, or when it never is.
		if own := strings.TrimPrefix(in.Name, "/"); own != "" && name != defaultNetwork && !slices.ContainsFunc(to.list("Aliases"), func(v any) bool { return v == own }) {
			to["Aliases"] = append(to.list("Aliases"), own)
		}
		switch got := in.NetworkSettings.Networks[name]; {
		case address == engine.AddressAny:
			delete(to, "IPAMConfig")
		case address == engine.AddressKeep && name != defaultNetwork && got.IPAMConfig == ipamConfig{} && got.IPAddress+got.GlobalIPv6Address != "":
			// Not the hardware address: where it matters, Docker derives it from this one, and else tells the neighbours.
			ask[name] = maps.Clone(to)
			ask[name]["IPAMConfig"] = map[string]any{"IPv4Address": got.IPAddress, "IPv6Address": got.GlobalIPv6Address}
		}
		switch name {
		case mode:
			first[name] = map[string]any(to)
		case defaultNetwork:
			if mode != "default" && mode != defaultNetwork {
				rest[name] = object{}
			}
		default:
			rest[name] = to
		}
	}
	return first, rest, ask
}

// connect one that was made to the other networks, and ask for addresses. Docker knows only when it connects whether a network
// takes the wish: it does not where it has chosen the subnet by itself.
func (d *Docker) connect(ctx context.Context, id string, plan draft) error {
	for _, name := range slices.Sorted(maps.Keys(plan.connect)) {
		if err := d.plug(ctx, id, name, plan.connect[name]); err != nil {
			return err
		}
	}
	first := object(plan.body.object("NetworkingConfig").object("EndpointsConfig"))
	for _, name := range slices.Sorted(maps.Keys(plan.ask)) {
		_, err := d.client.Send(ctx, sockethttp.Order{
			Path: "/networks/" + url.PathEscape(name) + "/disconnect", Within: connectWithin, Body: map[string]any{"Container": id},
		}, nil)
		if err != nil {
			return fmt.Errorf("disconnect it from the network %s: %w", printable(name), err)
		}
		err = d.plug(ctx, id, name, plan.ask[name])
		if refused := new(sockethttp.Refusal); errors.As(err, &refused) && refused.Status < http.StatusInternalServerError {
			without := plan.connect[name]
			if without == nil {
				without = first.object(name)
			}
			err = d.plug(ctx, id, name, without)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (d *Docker) plug(ctx context.Context, id, network string, endpoint object) error {
	_, err := d.client.Send(ctx, sockethttp.Order{
		Path: "/networks/" + url.PathEscape(network) + "/connect", Within: connectWithin,
		Body: map[string]any{"Container": id, "EndpointConfig": endpoint},
	}, nil)
	if err != nil {
		return fmt.Errorf("connect it to the network %s: %w", printable(network), err)
	}
	return nil
}

// addressTaken tells whether a start failed for that. What is said of a port has a small letter.
func addressTaken(message string) bool { return strings.Contains(message, "Address already in use") }
