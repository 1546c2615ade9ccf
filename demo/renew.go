// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/whittle-sec/whittle/internal/api"
)

// renew nginx while it is asked: a successor takes over, and nobody notices.
func (d *demo) renew(ctx context.Context) error {
	d.say("A successor takes over from nginx, which goes on being asked")
	nginx := d.services[slices.IndexFunc(d.services, func(s *service) bool { return s.name == "nginx" })]
	old, err := d.env.Run(ctx, "inspect", "--format", "{{.Id}}", nginx.name)
	if err != nil {
		return err
	}
	before, err := nginx.load.count()
	if err != nil {
		return fmt.Errorf("the load on nginx: %w", err)
	}
	fmt.Fprintln(d.out, "$ whittle renew nginx")
	text, err := d.cli(ctx, "renew", nginx.name, "--podman", d.env.Socket())
	fmt.Fprint(d.out, text)
	if err != nil {
		return err
	}
	now, err := d.env.Run(ctx, "inspect", "--format", "{{.Id}}", nginx.name)
	if err != nil {
		return err
	}
	if now == old {
		return errors.New("nginx is the same container as before")
	}
	if err := until(ctx, readyIn, "the successor is enforced, and answers", func() bool {
		status, err := d.client.Status(ctx)
		if err != nil || slices.ContainsFunc(status.Containers, func(c api.Container) bool { return strings.Contains(c.Name, "-whittle-") }) {
			return false
		}
		c, ok := containerOf(status, nginx.name)
		after, err := nginx.load.count()
		return ok && c.ID == now && c.Supervision != nil && c.Supervision.Mode == api.ModeEnforce && err == nil && after > before
	}); err != nil {
		return err
	}
	after, err := nginx.load.count()
	if err != nil {
		return fmt.Errorf("the load on nginx during its renewal: %w", err)
	}
	fmt.Fprintf(d.out, "requests meanwhile: %d, errors: none; the successor is enforced\n", after-before)
	return nil
}
