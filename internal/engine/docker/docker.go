// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/engine/sockethttp"
	"github.com/whittle-sec/whittle/internal/workload"
)

func printable(s string) string { return sockethttp.Printable(s) }

// List describes the containers that have a process.
func (d *Docker) List(ctx context.Context) ([]engine.Container, error) {
	query := url.Values{"filters": {`{"status":["running","paused"]}`}}
	return d.client.Running(ctx, query, d.Inspect)
}

// inspection is what is read of Docker's ContainerJSON.
type inspection struct {
	ID    string `json:"Id"`
	Name  string // "/web"
	Path  string
	Args  []string
	Image string // "sha256:…" of its configuration; of its manifest where containerd stores the images
	State struct {
		Status     string
		Restarting bool
		Pid        int
		StartedAt  time.Time
		ExitCode   int
		OOMKilled  bool
		FinishedAt time.Time
		Error      string
		Health     struct{ Status string }
	}
	Mounts          []sockethttp.Mount
	NetworkSettings struct {
		Ports    map[string][]sockethttp.Binding
		Networks map[string]endpoint
	}
	Config struct {
		Image       string
		Labels      map[string]string
		Env, Cmd    []string
		StopSignal  string
		StopTimeout *uint
		Tty         bool
		Healthcheck *sockethttp.Healthcheck
	}
	HostConfig struct {
		Privileged      bool
		SecurityOpt     []string
		Runtime         string
		NetworkMode     string
		PortBindings    map[string][]sockethttp.Binding
		PublishAllPorts bool
		AutoRemove      bool
		RestartPolicy   struct{ Name string }
	}
}

// endpoint of a container in a network.
type endpoint struct {
	IPAddress, GlobalIPv6Address string
	IPAMConfig                   ipamConfig
}

// ipamConfig is what was asked for.
type ipamConfig struct{ IPv4Address, IPv6Address string }

// Inspect describes one container.
func (d *Docker) Inspect(ctx context.Context, id string) (engine.Container, error) {
	doing := "inspect docker's container " + printable(id)
	in, err := d.inspection(ctx, id)
	if err != nil {
		return engine.Container{}, fmt.Errorf("%s: %w", doing, err)
	}
	return d.container(ctx, doing, in)
}

// inspection of a container, in Docker's words.
func (d *Docker) inspection(ctx context.Context, id string) (inspection, error) {
	in, _, err := d.document(ctx, id)
	return in, err
}

// document is an inspection with the text of it.
func (d *Docker) document(ctx context.Context, id string) (in inspection, text json.RawMessage, err error) {
	if !nameable(id) {
		return in, nil, d.client.Unknown("")
	}
	if err := d.client.Get(ctx, "/containers/"+id+"/json", nil, &text); err != nil {
		return in, nil, err
	}
	if err := json.Unmarshal(text, &in); err != nil {
		return in, nil, fmt.Errorf("understand docker's answer: %w: %w", engine.ErrIncompatible, err)
	}
	if in.ID == "" {
		return in, nil, fmt.Errorf("the answer has no id: %w", engine.ErrIncompatible)
	}
	return in, text, nil
}

// container that an inspection describes.
func (d *Docker) container(ctx context.Context, doing string, in inspection) (engine.Container, error) {
	c := describe(in)
	host, err := d.host(ctx, in.HostConfig.Runtime)
	if err != nil {
		return engine.Container{}, fmt.Errorf("%s: %w", doing, err)
	}
	if err := locate(&c, in, host); err != nil {
		return engine.Container{}, fmt.Errorf("%s: %w", doing, err)
	}
	return c, nil
}

// nameable is what Docker lets a container be called. Anything else in an address would ask for something else.
func nameable(id string) bool {
	plain := func(r rune) bool {
		return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("_.-", r)
	}
	return id != "" && len(id) <= 1024 && strings.Trim(id, ".") != "" && !strings.ContainsFunc(id, func(r rune) bool { return !plain(r) })
}

// describe turns Docker's words into ours. What may come from an image or a command line is made printable, except what
// identifies: the digest and the command.
func describe(in inspection) engine.Container {
	c := engine.Container{
		Container: workload.Container{
			Engine: "docker",
			ID:     in.ID,
			Name:   printable(strings.TrimPrefix(in.Name, "/")),
			Workload: workload.Workload{
				Image:   printable(in.Config.Image),
				Digest:  in.Image,
				Command: append([]string{in.Path}, in.Args...),
			},
		},
		State:           state(in.State.Status),
		ImageID:         strings.TrimPrefix(in.Image, "sha256:"),
		StopSignal:      engine.ParseSignal(in.Config.StopSignal),
		Seccomp:         seccomp(in),
		NoNewPrivileges: slices.Contains([]string{"no-new-privileges", "true"}, option(in.HostConfig.SecurityOpt, "no-new-privileges")),
		StartedAt:       in.State.StartedAt,
	}
	for key, value := range in.Config.Labels {
		if c.Labels == nil {
			c.Labels = make(map[string]string, len(in.Config.Labels))
		}
		c.Labels[printable(key)] = printable(value)
	}
	return c
}

func state(dockers string) engine.State {
	switch dockers {
	case "running":
		return engine.Running
	case "paused":
		return engine.Paused
	case "created":
		return engine.Created
	}
	return engine.Exited
}

// seccomp reads what Docker was asked for. A profile of somebody's own has no path: the client sends its contents.
func seccomp(in inspection) string {
	switch asked := option(in.HostConfig.SecurityOpt, "seccomp"); {
	case in.HostConfig.Privileged, asked == "unconfined":
		return engine.SeccompUnconfined
	case asked != "" && asked != "builtin":
		return ""
	}
	return engine.SeccompDefault
}

// option is the value of name=VALUE or name:VALUE, or the name itself when it stands alone.
func option(options []string, name string) string {
	for _, o := range options {
		rest, ok := strings.CutPrefix(o, name)
		switch {
		case !ok:
		case rest == "":
			return name
		case rest[0] == '=' || rest[0] == ':':
			return rest[1:]
		}
	}
	return ""
}
