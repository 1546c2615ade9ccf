// SPDX-License-Identifier: Apache-2.0

package podman

import (
	"context"
	"fmt"
	"strings"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/hint"
)

// Recipe is the podman run that makes a container like one that there is: Program run OPTIONS… IMAGE COMMAND….
type Recipe struct {
	Program string   // the path of podman's command line
	Options []string // each "--name=value"
	Image   string   // or the directory that --rootfs is for
	Command []string
}

// Recipe of a container, changed, for who starts it without an agent: systemd. Nothing is made.
func (p *Podman) Recipe(ctx context.Context, like string, c engine.Changes) (Recipe, error) {
	doing := "find out how podman's container " + printable(like) + " is made"
	in, err := p.inspection(ctx, like)
	if err != nil {
		return Recipe{}, fmt.Errorf("%s: %w", doing, err)
	}
	cmd, problems, err := p.successor(ctx, in, c)
	if err != nil {
		return Recipe{}, fmt.Errorf("%s: %w", doing, err)
	}
	if len(problems) > 0 {
		return Recipe{}, hint.Add(fmt.Errorf("%s: %w: %s", doing, engine.ErrNotReproducible, strings.Join(problems, "; ")),
			"create it with podman run and absolute paths")
	}
	g, err := client(ctx)
	if err != nil {
		return Recipe{}, fmt.Errorf("%s: %w", doing, err)
	}
	r := Recipe{Program: g.program, Image: cmd.image, Command: cmd.args}
	for _, o := range cmd.options {
		r.Options = append(r.Options, o.arg())
	}
	return r, nil
}
