// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
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
	ownHint     = "make the successor yourself, the way this container was made, and name it with --successor"
)

// likeDocker is what two of Docker's documents must have in common, and what each has of its own.
var likeDocker = likeness.Engine{
	Same: []string{"Path", "Args", "Image", "Driver", "Platform"},
	Apart: []string{
		"Config.Image", // the name or the id of the very same image, which is compared
		"HostConfig.ContainerIDFile",
	},
}

// Make another container of the first one's document, and compare the two.
func (d *Docker) Make(ctx context.Context, like string, c engine.Changes) (string, error) {
	id, err := d.makeLike(ctx, like, c)
	if err != nil {
		return "", fmt.Errorf("make a container like docker's %s: %w", printable(like), err)
	}
	return id, nil
}

func (d *Docker) makeLike(ctx context.Context, like string, c engine.Changes) (string, error) {
	if c.Name == "" {
		return "", errors.New("it needs a name")
	}
	in, text, err := d.document(ctx, like)
	if err != nil {
		return "", err
	}
	plan, err := d.draft(ctx, in, text, c)
	if why := (problems)(nil); errors.As(err, &why) {
		return "", hint.Add(fmt.Errorf("%w: %w", engine.ErrNotReproducible, why), ownHint)
	}
	if err != nil {
		return "", err
	}
	id, err := d.create(ctx, c.Name, plan)
	if err != nil {
		return "", err
	}
	err = d.connect(ctx, id, plan)
	if err == nil {
		err = d.compare(ctx, plan, id, c)
	}
	if err != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanWithin)
		defer cancel()
		return "", errors.Join(err, d.Remove(ctx, id))
	}
	return id, nil
}

func (d *Docker) create(ctx context.Context, name string, plan draft) (string, error) {
	var made struct{ ID string }
	_, err := d.client.Send(ctx, sockethttp.Order{
		Path: "/containers/create", Query: url.Values{"name": {name}}, Body: plan.body, Within: makeWithin,
	}, &made)
	if sockethttp.Refused(err, http.StatusConflict) {
		return "", fmt.Errorf("%w: %w", engine.ErrNameTaken, err)
	}
	if err != nil {
		return "", fmt.Errorf("create: %w", err)
	}
	if !sockethttp.Anonymous(made.ID) { // the form is the same
		return "", fmt.Errorf("docker answers with the id %s: %w", printable(made.ID), engine.ErrIncompatible)
	}
	return made.ID, nil
}

func (d *Docker) compare(ctx context.Context, plan draft, id string, c engine.Changes) error {
	_, after, err := d.document(ctx, id)
	if err != nil {
		return fmt.Errorf("compare it: %w", err)
	}
	found, err := likeness.Differences(plan.like, after, c, likeDocker)
	if err != nil {
		return err
	}
	if len(found) > 0 {
		return hint.Add(fmt.Errorf("%w: %s", engine.ErrDifferent, strings.Join(found, "; ")), ownHint)
	}
	return nil
}
