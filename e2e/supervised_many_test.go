// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"testing"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/testenv"
	"github.com/whittle-sec/whittle/testbed/bedtest"
)

// patient has a program run until it is told to stop.
var patient = []string{"/bin/sh", "-c", `trap 'exit 0' TERM; /bin/busybox sleep 100000 & wait $!`}

// TestManyPodmans start a container each, at once: all come up under their filters and all end.
func TestManyPodmans(t *testing.T) {
	t.Parallel()
	testenv.NeedTool(t, "busybox")
	const count = 30
	e, d := supervisedBed(t, "")
	bedtest.LoadBusybox(t, e)
	start := func(ctx context.Context, name string) error {
		args := []string{"run", "--detach", "--network", "none", "--name", name, bedtest.Busybox}
		_, err := e.Run(ctx, append(args, patient...)...)
		return err
	}
	end := func(ctx context.Context, name string) error {
		if _, err := e.Run(ctx, "stop", "--time", "60", name); err != nil {
			return err
		}
		code, err := e.Run(ctx, "inspect", "--format", "{{.State.ExitCode}}", name)
		if err == nil && code != "0" {
			log, _ := e.Command(ctx, "logs", name).CombinedOutput()
			err = fmt.Errorf("%s ended with %s: %s", name, code, log)
		}
		return err
	}
	if err := start(t.Context(), "learner"); err != nil {
		t.Fatal(err)
	}
	c := d.container("learner", "has started a program", func(c api.Container) bool { return c.Distinct > 20 })
	if err := end(t.Context(), "learner"); err != nil {
		t.Fatal(err)
	}
	d.forgotten()
	d.whittle("policy", "mode", c.WorkloadID, "enforce")
	name := func(i int) string { return fmt.Sprintf("many-%d", i) }
	atOnce(t, count, count, func(ctx context.Context, i int) error { return start(ctx, name(i)) })
	eventually(t, "all are supervised", func() (bool, string) {
		var up int
		containers := d.status().Containers
		for _, c := range containers {
			if s := c.Supervision; s != nil && s.Listeners == 1 && s.Mode == api.ModeEnforce && s.Calls > 0 {
				up++
			}
		}
		return up == count, fmt.Sprintf("%d of %d, which should be %d", up, len(containers), count)
	})
	for _, c := range d.status().Containers {
		if c.Supervision == nil || c.Supervision.How != "start" {
			t.Errorf("%s was not started under its filter: %+v", c.Name, c.Supervision)
		}
	}
	atOnce(t, count, 4, func(ctx context.Context, i int) error { return end(ctx, name(i)) })
	d.forgotten()
	d.nothingRefused("of many containers")
}
