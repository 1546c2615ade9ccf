// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/spf13/cobra"
	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/engine/oci"
)

// newHook is what OCI runtimes call. It exits 0 whatever happens: a failing hook keeps a container from starting.
func newHook(a *app) *cobra.Command {
	return &cobra.Command{
		Use:    "hook precreate|createRuntime|poststop",
		Short:  "tell the agent about a container (called by OCI runtimes)",
		Hidden: true,
		Args:   cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			stage := ""
			if len(args) == 1 {
				stage = args[0]
			}
			if stage == oci.Precreate {
				oci.PrecreateHook(cmd.Context(), a.in, a.out, a.talk, a.prepareOrNothing)
				return nil
			}
			oci.Hook(cmd.Context(), stage, a.in, a.talk, a.notify)
			return nil
		},
	}
}

// notify the agent. Without an agent there is nobody to tell, and nothing to say in the runtime's log either.
func (a *app) notify(ctx context.Context, n oci.Notice) error {
	client := api.NewClient(a.socket)
	defer client.Close()
	var err error
	switch n.Stage {
	case oci.CreateRuntime:
		err = client.Register(ctx, api.Registration{Container: n.Container, Profile: n.Profile, RuntimeDigest: n.RuntimeDigest})
	case oci.Poststop:
		err = client.Gone(ctx, api.Gone{Engine: n.Container.Engine, ID: n.Container.ID})
	}
	if errors.Is(err, api.ErrNotRunning) {
		return nil
	}
	return err
}

// prepare asks the agent how a container shall start. An agent that does not supervise leaves it as it is.
func (a *app) prepare(ctx context.Context, d oci.Draft) (json.RawMessage, error) {
	client := api.NewClient(a.socket)
	defer client.Close()
	out, err := client.Prepare(ctx, api.Preparation{
		Container: d.Container, Annotations: d.Annotations, Profile: d.Profile, Runtime: d.Runtime,
	})
	if errors.Is(err, api.ErrNotFound) {
		return nil, nil
	}
	return out.Profile, err
}

// prepareOrNothing has nothing to say where no agent runs, as notify has not.
func (a *app) prepareOrNothing(ctx context.Context, d oci.Draft) (json.RawMessage, error) {
	profile, err := a.prepare(ctx, d)
	if errors.Is(err, api.ErrNotRunning) {
		return nil, nil
	}
	return profile, err
}
