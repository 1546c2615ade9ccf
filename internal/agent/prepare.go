// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/filter"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/store"
	"github.com/whittle-sec/whittle/internal/ward"
)

var _ api.Preparer = (*Agent)(nil)

// ModeKey is the label, or the annotation, that says what is done with a container whatever its workload's mode is.
const ModeKey = "io.whittle.mode"

// shortModeKey is what people type.
const shortModeKey = "whittle.mode"

// Prepare tells what seccomp section a container shall start with. Whatever stands in the way, the container starts as it
// would without Whittle, and Why says so.
func (a *Agent) Prepare(ctx context.Context, by api.Peer, p api.Preparation) (api.Prepared, error) {
	if a.Supervising == nil {
		return api.Prepared{Why: "this agent does not supervise"}, nil
	}
	c := p.Container
	twin := a.twins.whose(c.ID)
	if twin == nil {
		twin = a.startedByUnit(ctx, by, c)
	}
	if twin != nil {
		c.Workload = twin.workload // an oracle goes by production's policy
	}
	id := c.Workload.ID()
	var mode api.WorkloadMode
	err := a.ask(ctx, func(m *model) error {
		mode = m.modeOf(id).now
		if own := ownMode(c.Labels, p.Annotations); own != "" {
			mode = own
		}
		return nil
	})
	if err != nil {
		return api.Prepared{}, err
	}
	if twin != nil {
		mode = api.ModeEnforce
	}
	switch {
	case mode != api.ModeShadow && mode != api.ModeEnforce:
		return api.Prepared{Why: fmt.Sprintf("its mode is %s", mode)}, nil
	case len(p.Profile) == 0 || c.Seccomp == engine.SeccompUnconfined:
		return api.Prepared{Why: "it was asked to run without a filter"}, nil
	}
	orders, err := a.loadOrders(ctx, id)
	if errors.Is(err, errNoPolicy) && mode == api.ModeEnforce && a.loops(id) {
		// Whoever has an oracle is never without protection: it is told what it needs, from nothing.
		if _, err = a.beginEmpty(ctx, c.Workload); err == nil {
			orders, err = a.loadOrders(ctx, id)
		}
	}
	if errors.Is(err, errNoPolicy) {
		return api.Prepared{Why: err.Error()}, nil
	}
	if err != nil {
		return api.Prepared{}, err
	}
	return a.prepare(ctx, c, orders, mode)
}

// ownMode of a container; auto is none of its own.
func ownMode(sources ...map[string]string) api.WorkloadMode {
	for _, s := range sources {
		switch mode := api.WorkloadMode(cmpOr(s[ModeKey], s[shortModeKey])); mode {
		case api.ModeLearn, api.ModeShadow, api.ModeEnforce, api.ModeOff:
			return mode
		}
	}
	return ""
}

// prepare the section, and record what is intended before the engine is told of it.
func (a *Agent) prepare(ctx context.Context, c engine.Container, o *ward.Orders, mode api.WorkloadMode) (api.Prepared, error) {
	section, err := filter.OCI(o.Plan.Booting())
	if err != nil {
		return api.Prepared{}, err
	}
	id := c.Workload.ID()
	seq, err := a.Store.IntendSupervision(ctx, store.Supervised{
		Engine: c.Engine, ID: c.ID, Name: c.Name, Workload: id, Boot: bootID(), How: "start", Mode: string(mode),
		Revision: o.Revision, Fingerprint: filter.Fingerprint(section),
	})
	if err != nil {
		return api.Prepared{}, err
	}
	if err := listenBy(section, a.Supervising.Listener, token{tokenVersion, id, o.Revision, seq}); err != nil {
		return api.Prepared{}, err
	}
	profile, err := json.Marshal(section)
	if err != nil {
		return api.Prepared{}, fmt.Errorf("write the profile: %w", err)
	}
	err = a.ask(ctx, func(m *model) error { m.orders[id] = o; return nil })
	return api.Prepared{Profile: profile, Why: fmt.Sprintf("policy %d of %s, %s", o.Revision, c.Workload.Name(), mode)}, err
}

// listenBy has the runtime hand the listener of a section to a socket.
func listenBy(section *specs.LinuxSeccomp, socket string, t token) error {
	metadata, err := json.Marshal(t)
	if err != nil {
		return fmt.Errorf("write the listener's metadata: %w", err)
	}
	section.ListenerPath, section.ListenerMetadata = socket, string(metadata)
	return nil
}

// SupervisedProfile is the profile for an engine that takes one with a listener and has no hook of ours. Containers that are
// started under it are answered by the agent at that socket, and do not start without one.
func SupervisedProfile(p policy.Policy, revision int, socket string) (*specs.LinuxSeccomp, error) {
	o := ward.OrdersOf(p, revision, planOptions(), nil)
	section, err := filter.OCI(o.Plan.Booting())
	if err != nil {
		return nil, err
	}
	return section, listenBy(section, socket, token{tokenVersion, p.Workload.ID(), revision, 0})
}
