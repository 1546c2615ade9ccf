// SPDX-License-Identifier: Apache-2.0

package podman

import (
	"context"
	"errors"
	"fmt"
	"net/url"

	"github.com/whittle-sec/whittle/internal/engine"
)

// Profiles that containers were made with, running or not: the file is read again whenever one is made like them.
func (p *Podman) Profiles(ctx context.Context) (paths []string, err error) {
	var listed []struct{ ID string }
	if err := p.client.Get(ctx, "/containers/json", url.Values{"all": {"true"}}, &listed); err != nil {
		return nil, fmt.Errorf("list podman's containers: %w", err)
	}
	for _, l := range listed {
		in, err := p.inspection(ctx, l.ID)
		if errors.Is(err, engine.ErrUnknownContainer) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("inspect podman's container %s: %w", printable(l.ID), err)
		}
		// Not as Inspect has it, which is made printable.
		switch asked := option(in.HostConfig.SecurityOpt, "seccomp"); asked {
		case "", engine.SeccompDefault, engine.SeccompUnconfined:
		default:
			paths = append(paths, asked)
		}
	}
	return paths, nil
}
