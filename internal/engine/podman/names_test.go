// SPDX-License-Identifier: Apache-2.0

package podman

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/testbed/bedtest"
)

// A successor is found by the name that its predecessor has in a network, before it is called so and afterwards: Podman's server
// of names is told what the aliases are, and the container's own name at its start only.
func TestSuccessorIsFoundByName(t *testing.T) {
	const network = "whittle-names"
	s := open(t)
	s.podman("network", "create", network)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute) // the test's own is done
		defer cancel()
		_, err := s.env.Run(ctx, "rm", "--all", "--force", "--time", "0")
		_, rest := s.env.Run(ctx, "network", "rm", network)
		if err := errors.Join(err, rest); err != nil {
			t.Error(err)
		}
	})
	s.podman("run", "-d", "--name", "web", "--network", network, bedtest.Busybox, "/bin/sh", "-c", "sleep 1000")
	for _, next := range []string{"second", "third"} {
		id, err := s.p.Make(t.Context(), "web", engine.Changes{Name: next})
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(s.p.Stop(t.Context(), "web", 0), s.p.Start(t.Context(), id)); err != nil {
			t.Fatal(err)
		}
		out, err := s.env.Run(t.Context(), "inspect", "--format", "{{range .NetworkSettings.Networks}}{{range .Aliases}}{{.}} {{end}}{{end}}", id)
		if err != nil || !slices.Contains(strings.Fields(out), "web") {
			t.Errorf("%s is called %q, %v; want web among it", next, out, err)
		}
		if err := errors.Join(s.p.Remove(t.Context(), "web"), s.p.Rename(t.Context(), id, "web")); err != nil {
			t.Fatal(err)
		}
	}
}
