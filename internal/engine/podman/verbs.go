// SPDX-License-Identifier: Apache-2.0

package podman

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/engine/sockethttp"
)

// What the runtime may take to create a container, and to delete one.
const (
	initWithin   = 60 * time.Second // what the runtime may take
	healthWithin = 5 * time.Minute  // the check has a time limit of its own
)

var (
	_ engine.Maker         = (*Podman)(nil)
	_ engine.Initializer   = (*Podman)(nil)
	_ engine.HealthChecker = (*Podman)(nil)
)

// nameable ids are what may stand in a path.
func nameable(id string) bool { return id != "" && strings.Trim(id, ".") != "" }

// words of the verbs that Podman has in common with Docker.
func (p *Podman) words() sockethttp.Words {
	return sockethttp.Words{See: p.see, Nameable: nameable, Patience: "timeout", AddressTaken: addressTaken}
}

func (p *Podman) see(ctx context.Context, id string) (sockethttp.Seen, error) {
	in, err := p.inspection(ctx, id)
	if err != nil {
		return sockethttp.Seen{}, err
	}
	s := in.State
	alive := state(s.Status).Alive()
	return sockethttp.Seen{
		ID: in.ID, Status: s.Status, Alive: alive,
		Runs: alive || s.Pid != 0 || s.Status == "initialized", // which has a process
		// Of one that is "stopped" the network is not taken down yet; it is "exited" then.
		Cleaning: in.HostConfig.AutoRemove || s.Status == "stopped",
		Exit:     engine.Exit{Code: s.ExitCode, OOM: s.OOMKilled, At: s.FinishedAt, Error: printable(s.Error)},
	}, nil
}

// Init does everything for a container but its service's exec.
func (p *Podman) Init(ctx context.Context, id string) error {
	err := p.Order(ctx, id, "init", sockethttp.Order{Within: initWithin, Also: []int{http.StatusNotModified}})
	if err != nil {
		return fmt.Errorf("initialize podman's container %s: %w", printable(id), err)
	}
	return nil
}

// Logs are the last lines of what it wrote.
func (p *Podman) Logs(ctx context.Context, id string, lines int) (string, error) {
	if !nameable(id) {
		return "", p.client.Unknown("")
	}
	// libpod frames the output of a terminal, too.
	text, err := p.client.Logs(ctx, "/containers/"+url.PathEscape(id), lines, true)
	if err != nil {
		return "", fmt.Errorf("read the logs of podman's container %s: %w", printable(id), err)
	}
	return text, nil
}

// Health runs the health check and waits for it.
func (p *Podman) Health(ctx context.Context, id string) (has, healthy bool, err error) {
	doing := "check the health of podman's container " + printable(id)
	in, err := p.inspection(ctx, id)
	if err != nil {
		return false, false, fmt.Errorf("%s: %w", doing, err)
	}
	if !in.Config.Healthcheck.Set() {
		return false, false, nil
	}
	var said struct{ Status string }
	_, err = p.client.Send(ctx, sockethttp.Order{
		Method: http.MethodGet,
		Path:   "/containers/" + in.ID + "/healthcheck",
		Within: healthWithin,
	}, &said)
	if err != nil {
		return true, false, fmt.Errorf("%s: %w", doing, err)
	}
	return true, said.Status == "healthy", nil
}
