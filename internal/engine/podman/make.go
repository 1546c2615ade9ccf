// SPDX-License-Identifier: Apache-2.0

package podman

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/engine/likeness"
	"github.com/whittle-sec/whittle/internal/engine/sockethttp"
	"github.com/whittle-sec/whittle/internal/hint"
)

const (
	makeWithin  = 5 * time.Minute // a storage without layers copies the image
	cleanWithin = time.Minute
	maxSaid     = 64 << 10
)

// likePodman is what two of Podman's documents must have in common, and what each has of its own.
var likePodman = likeness.Engine{
	Same: []string{
		"Path", "Args", "Image", "ImageDigest", "Rootfs", "Pod", "OCIRuntime", "AppArmorProfile", "EffectiveCaps", "BoundingCaps",
		"Dependencies", "Namespace", "IsInfra",
	},
	Apart: []string{
		"Config.CreateCommand",
		"Config.Image",                                 // the name or the id of the very same image, which is compared
		"Config.sdNotifyMode", "Config.sdNotifySocket", // of the unit that made the predecessor
		"HostConfig.ContainerIDFile", "Config.Annotations.io.podman.annotations.cid-file",
		"HostConfig.PublishAllPorts", "Config.Annotations.io.podman.annotations.publish-all", // the ports themselves are compared
		"HostConfig.LogConfig.Path", "HostConfig.LogConfig.Size",
		"Config.Annotations.io.container.manager", "Config.Annotations.io.kubernetes.cri-o.Created",
		"Config.Annotations.org.opencontainers.image.stopSignal", // all three come with the first start
		"Config.Annotations.io.podman.annotations.seccomp",       // what SecurityOpt says
	},
	Env: engineEnv,
}

// successor is the command line that makes a container again, and the problems with it. An error means that there is none.
func (p *Podman) successor(ctx context.Context, in inspection, c engine.Changes) (command, []string, error) {
	if in.IsInfra {
		return command{}, []string{"it is the container of a pod that has the pod's namespaces"}, nil
	}
	g, err := client(ctx)
	if err != nil {
		return command{}, nil, err
	}
	origin, err := g.parse(in.Config.CreateCommand)
	if err != nil {
		return command{}, []string{err.Error()}, nil
	}
	e := editor{in: in, changes: c, exists: exists}
	if c.Address == engine.AddressKeep {
		if e.networks, err = p.attached(ctx, in); err != nil {
			return command{}, nil, err
		}
	}
	if in.Image != "" {
		image, err := p.picture(ctx, in.Image)
		if err != nil && !errors.Is(err, engine.ErrUnknownContainer) {
			return command{}, nil, fmt.Errorf("ask podman for the image: %w", err)
		}
		if err != nil && c.Image == "" {
			return command{}, []string{"its image is not there any more"}, nil
		}
		e.imageEnv, e.labels = image.Config.Env, image.Config.Labels
		// The name, for those who read it, as long as it means the same image.
		if named, err := p.picture(ctx, origin.image); err != nil || named.ID != in.Image {
			origin.image = in.Image
		}
	}
	if c.Image != "" {
		origin.image = c.Image
	}
	out, problems := e.edit(origin)
	if strings.HasPrefix(out.image, "-") || out.image == "" {
		problems = append(problems, "no image is called "+printable(out.image))
	}
	if in.Rootfs != "" && c.Image == "" && !strings.HasPrefix(out.image, "/") {
		problems = append(problems, "the path of its root file system is relative: "+printable(out.image))
	}
	for _, o := range out.options {
		if _, ok := g.remote["--"+o.name]; !ok {
			problems = append(problems, fmt.Sprintf("podman does not take --%s at a socket", o.name))
		}
	}
	return out, problems, nil
}

// Make another container with the command line that made the first, edited, and compare the two.
func (p *Podman) Make(ctx context.Context, like string, c engine.Changes) (string, error) {
	doing := "make a container like podman's " + printable(like)
	id, err := p.makeLike(ctx, like, c)
	if err != nil {
		return "", fmt.Errorf("%s: %w", doing, err)
	}
	return id, nil
}

func (p *Podman) makeLike(ctx context.Context, like string, c engine.Changes) (string, error) {
	if c.Name == "" {
		return "", errors.New("it needs a name")
	}
	in, before, err := p.document(ctx, like)
	if err != nil {
		return "", err
	}
	if _, err := p.inspection(ctx, c.Name); err == nil {
		return "", fmt.Errorf("%w: %s", engine.ErrNameTaken, printable(c.Name))
	} else if !errors.Is(err, engine.ErrUnknownContainer) {
		return "", err
	}
	cmd, problems, err := p.successor(ctx, in, c)
	if err != nil {
		return "", err
	}
	if len(problems) > 0 {
		err := fmt.Errorf("%w: %s", engine.ErrNotReproducible, strings.Join(problems, "; "))
		return "", hint.Add(err, "make the successor yourself, the way this container was made, and name it with --successor")
	}
	id, err := p.create(ctx, cmd)
	if err != nil {
		return "", err
	}
	if err := p.compare(ctx, before, id, c); err != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanWithin)
		defer cancel()
		return "", errors.Join(err, p.Remove(ctx, id))
	}
	return id, nil
}

func (p *Podman) compare(ctx context.Context, before []byte, id string, c engine.Changes) error {
	_, after, err := p.document(ctx, id)
	if err != nil {
		return fmt.Errorf("compare it: %w", err)
	}
	found, err := likeness.Differences(before, after, c, likePodman)
	if err != nil {
		return err
	}
	if len(found) > 0 {
		err := fmt.Errorf("%w: %s", engine.ErrDifferent, strings.Join(found, "; "))
		return hint.Add(err, "make the successor yourself, the way this container was made, and name it with --successor")
	}
	return nil
}

// create runs podman's command line against the same server.
func (p *Podman) create(ctx context.Context, c command) (string, error) {
	program, err := exec.LookPath("podman")
	if err != nil {
		return "", fmt.Errorf("find podman's command line: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, makeWithin)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, c.argv(p.socket)...)
	cmd.Env, cmd.Dir, cmd.WaitDelay = environment(), "/", time.Second
	var out, said bounded
	cmd.Stdout, cmd.Stderr = &out, &said
	err = cmd.Run()
	if ctx.Err() != nil {
		err := fmt.Errorf("%w: podman create did not end: %w", engine.ErrOutcomeUnknown, ctx.Err())
		return "", hint.Add(err, "see what became of it with `podman ps --all`")
	}
	if err != nil {
		return "", refusal(err, said.String())
	}
	id := strings.TrimSpace(out.String())
	if !sockethttp.Anonymous(id) { // the form is the same
		return "", fmt.Errorf("podman create answers %s: %w", printable(id), engine.ErrIncompatible)
	}
	return id, nil
}

// refusal finds the error among the warnings.
func refusal(err error, said string) error {
	lines := strings.Split(strings.TrimSpace(said), "\n")
	why := lines[len(lines)-1]
	for _, line := range lines {
		if strings.HasPrefix(line, "Error: ") {
			why = line
		}
	}
	why = strings.TrimPrefix(why, "Error: ")
	err = fmt.Errorf("podman create: %w: %s", err, printable(why))
	switch {
	case strings.Contains(why, "is already in use"):
		return fmt.Errorf("%w: %w", engine.ErrNameTaken, err)
	case strings.Contains(why, "image not known"), strings.Contains(why, "no such image"):
		return hint.Add(err, "load or pull the image first: whittle pulls none")
	}
	return err
}

// environment of the client. Nothing in it may lead it to another server, or reach the container as a variable.
func environment() []string {
	var out []string
	for _, name := range []string{
		"PATH", "HOME", "TMPDIR", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR", "CONTAINERS_CONF", "CONTAINERS_CONF_OVERRIDE", "CONTAINERS_STORAGE_CONF",
	} {
		if value, ok := os.LookupEnv(name); ok {
			out = append(out, name+"="+value)
		}
	}
	return out
}

// bounded keeps the beginning of what is written.
type bounded struct{ bytes.Buffer }

func (b *bounded) Write(data []byte) (int, error) {
	b.Buffer.Write(data[:min(len(data), maxSaid-b.Len())])
	return len(data), nil
}
