// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"context"
	"fmt"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/engine/sockethttp"
)

var (
	_ engine.Maker         = (*Docker)(nil)
	_ engine.HealthChecker = (*Docker)(nil)
)

// words of the verbs that Docker has in common with Podman.
func (d *Docker) words() sockethttp.Words {
	return sockethttp.Words{See: d.see, Nameable: nameable, Patience: "t", AddressTaken: addressTaken}
}

func (d *Docker) see(ctx context.Context, id string) (sockethttp.Seen, error) {
	in, err := d.inspection(ctx, id)
	if err != nil {
		return sockethttp.Seen{}, err
	}
	s := in.State
	runs := s.Pid > 0 || s.Restarting || state(s.Status).Alive() // a restart policy waits before it starts it again
	return sockethttp.Seen{
		ID: in.ID, Status: s.Status, Alive: runs, Runs: runs, Cleaning: in.HostConfig.AutoRemove,
		Exit: engine.Exit{Code: s.ExitCode, OOM: s.OOMKilled, At: s.FinishedAt, Error: printable(s.Error)},
	}, nil
}

// Logs are the last lines of what it wrote.
func (d *Docker) Logs(ctx context.Context, id string, lines int) (string, error) {
	doing := "read the logs of docker's container " + printable(id)
	in, err := d.inspection(ctx, id)
	if err != nil {
		return "", fmt.Errorf("%s: %w", doing, err)
	}
	text, err := d.client.Logs(ctx, "/containers/"+in.ID, lines, !in.Config.Tty)
	if err != nil {
		return "", fmt.Errorf("%s: %w", doing, err)
	}
	return text, nil
}

// Health is what Docker's last check said; it makes them by itself.
func (d *Docker) Health(ctx context.Context, id string) (has, healthy bool, err error) {
	in, err := d.inspection(ctx, id)
	if err != nil {
		return false, false, fmt.Errorf("ask for the health of docker's container %s: %w", printable(id), err)
	}
	return in.Config.Healthcheck.Set(), in.State.Health.Status == "healthy", nil
}
