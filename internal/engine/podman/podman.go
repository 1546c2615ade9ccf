// SPDX-License-Identifier: Apache-2.0

package podman

import (
	"context"
	"encoding/json"
	"errors"
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
func (p *Podman) List(ctx context.Context) ([]engine.Container, error) {
	query := url.Values{"filters": {`{"status":["running","paused"]}`}, "all": {"true"}}
	return p.client.Running(ctx, query, p.Inspect)
}

// inspection is what is read of libpod's InspectContainerData.
type inspection struct {
	ID          string `json:"Id"`
	Name        string
	Path        string
	Args        []string
	Image       string // its id
	ImageDigest string
	ImageName   string
	OCIRuntime  string
	Rootfs      string // instead of an image
	Pod         string // its id
	IsInfra     bool   // the pod's own container, which has its namespaces
	State       struct {
		Status     string
		Pid        int
		ConmonPid  int
		StartedAt  time.Time
		CgroupPath string
		ExitCode   int
		OOMKilled  bool
		FinishedAt time.Time
		Error      string
	}
	Mounts          []sockethttp.Mount
	NetworkSettings struct {
		addresses
		Networks map[string]addresses
	}
	Config struct {
		Labels        map[string]string
		Annotations   map[string]string
		StopSignal    json.RawMessage // a number; from Podman 5 on a name
		StopTimeout   *uint
		Env, Cmd      []string
		CreateCommand []string
		Healthcheck   *sockethttp.Healthcheck
	}
	HostConfig struct {
		Privileged                                                  bool
		SecurityOpt                                                 []string
		NetworkMode, PidMode, IpcMode, UTSMode, UsernsMode, Cgroups string
		AutoRemove                                                  bool
		RestartPolicy                                               struct{ Name string }
		PortBindings                                                map[string][]sockethttp.Binding
	}
}

type addresses struct{ IPAddress, GlobalIPv6Address, MacAddress string }

// Inspect describes one container.
func (p *Podman) Inspect(ctx context.Context, id string) (engine.Container, error) {
	doing := "inspect podman's container " + printable(id)
	in, err := p.inspection(ctx, id)
	if err != nil {
		return engine.Container{}, fmt.Errorf("%s: %w", doing, err)
	}
	return p.container(ctx, doing, in)
}

// inspection of a container, in Podman's words.
func (p *Podman) inspection(ctx context.Context, id string) (inspection, error) {
	in, _, err := p.document(ctx, id)
	return in, err
}

// document is an inspection with the text of it.
func (p *Podman) document(ctx context.Context, id string) (in inspection, text json.RawMessage, err error) {
	// An id ends up in a path: a slash or a query in it would ask for something else.
	if !nameable(id) {
		return in, nil, p.client.Unknown("")
	}
	if err := p.client.Get(ctx, "/containers/"+url.PathEscape(id)+"/json", nil, &text); err != nil {
		return in, nil, err
	}
	if err := json.Unmarshal(text, &in); err != nil {
		return in, nil, fmt.Errorf("understand podman's answer: %w: %w", engine.ErrIncompatible, err)
	}
	if in.ID == "" {
		return in, nil, fmt.Errorf("the answer has no id: %w", engine.ErrIncompatible)
	}
	return in, text, nil
}

// container that an inspection describes.
func (p *Podman) container(ctx context.Context, doing string, in inspection) (engine.Container, error) {
	if in.ImageDigest == "" && in.Image != "" { // Podman 3 tells it of the image only
		digest, err := p.imageDigest(ctx, in.Image)
		if err != nil {
			return engine.Container{}, fmt.Errorf("%s: %w", doing, err)
		}
		in.ImageDigest = digest
	}
	c := describe(in)
	if err := locate(&c, in); err != nil {
		return engine.Container{}, fmt.Errorf("%s: %w", doing, err)
	}
	return c, nil
}

// imageDigest is empty for an image that has none or was removed.
func (p *Podman) imageDigest(ctx context.Context, id string) (string, error) {
	var image struct{ Digest string }
	err := p.client.Get(ctx, "/images/"+url.PathEscape(id)+"/json", nil, &image)
	if errors.Is(err, engine.ErrUnknownContainer) {
		return "", nil
	}
	return image.Digest, err
}

// describe turns Podman's words into ours. What may come from an image or a command line is made printable, except what
// identifies: the digest and the command.
func describe(in inspection) engine.Container {
	digest := in.ImageDigest
	if digest == "" && in.Image != "" {
		digest = "sha256:" + strings.TrimPrefix(in.Image, "sha256:")
	}
	image := in.ImageName
	if image == "" {
		image = in.Rootfs
	}
	c := engine.Container{
		Container: workload.Container{
			Engine: "podman",
			ID:     in.ID,
			Name:   printable(in.Name),
			Workload: workload.Workload{
				Image:   printable(image),
				Digest:  digest,
				Command: append([]string{in.Path}, in.Args...),
			},
		},
		State:           state(in.State.Status),
		ImageID:         in.Image,
		StopSignal:      signal(in.Config.StopSignal),
		Seccomp:         seccomp(in),
		NoNewPrivileges: option(in.HostConfig.SecurityOpt, "no-new-privileges") != "",
		StartedAt:       in.State.StartedAt,
	}
	for key, value := range in.Config.Labels {
		if c.Labels == nil {
			c.Labels = make(map[string]string, len(in.Config.Labels))
		}
		c.Labels[printable(key)] = printable(value)
	}
	// The hooks see annotations only, so that is where people say it. Both count, and the annotation wins, as it does there.
	for key, value := range in.Config.Annotations {
		if strings.HasPrefix(strings.TrimPrefix(key, "io."), "whittle.") {
			if c.Labels == nil {
				c.Labels = make(map[string]string)
			}
			c.Labels[printable(key)] = printable(value)
		}
	}
	return c
}

func state(podmans string) engine.State {
	switch podmans {
	case "running", "stopping":
		return engine.Running
	case "paused":
		return engine.Paused
	case "created", "configured", "initialized":
		return engine.Created
	}
	return engine.Exited
}

// signal reads a number, or a name as Podman 5 has it.
func signal(raw json.RawMessage) int {
	var name string
	if json.Unmarshal(raw, &name) == nil {
		return engine.ParseSignal(name)
	}
	return engine.ParseSignal(string(raw))
}

// seccomp reads what Podman was asked for. It tells nothing when that was nothing: its default, unless privileged.
func seccomp(in inspection) string {
	switch asked := option(in.HostConfig.SecurityOpt, "seccomp"); {
	case asked == "unconfined":
		return engine.SeccompUnconfined
	case asked != "" && asked != "default":
		return printable(asked)
	case asked == "" && in.HostConfig.Privileged:
		return engine.SeccompUnconfined
	}
	return engine.SeccompDefault
}

// option is the value of name=VALUE or name:VALUE, or the name itself when it stands alone.
func option(options []string, name string) string {
	i := slices.IndexFunc(options, func(o string) bool {
		rest, ok := strings.CutPrefix(o, name)
		return ok && (rest == "" || rest[0] == '=' || rest[0] == ':')
	})
	if i < 0 {
		return ""
	}
	if options[i] == name {
		return name
	}
	return options[i][len(name)+1:]
}
