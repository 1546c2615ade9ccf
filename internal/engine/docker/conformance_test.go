// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"context"
	"errors"
	"testing"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/engine/enginetest"
	"github.com/whittle-sec/whittle/internal/testenv"
	"github.com/whittle-sec/whittle/testbed"
	"github.com/whittle-sec/whittle/testbed/bedtest"
)

func TestMain(m *testing.M) { testenv.Main(m) }

func TestConformance(t *testing.T) {
	testenv.NeedDocker(t)
	testenv.NeedTool(t, "busybox")
	bed := bedtest.UpDocker(t, nil)
	d := New(bed.Socket())
	defer d.Close()
	run := func(t testing.TB, args ...string) string {
		t.Helper()
		out, err := bed.Run(t.Context(), args...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	enginetest.Conform(t, enginetest.Bench{
		Engine:    d,
		Image:     bedtest.Busybox,
		Runtime:   "runc",
		ImageOnly: true,
		Start:     func(t testing.TB, c enginetest.Container) string { return start(t, bed, c) },
		Kill: func(t testing.TB, id string) {
			run(t, "kill", id)
			run(t, "wait", id)
		},
	})
}

func start(t testing.TB, bed *testbed.Docker, c enginetest.Container) string {
	t.Helper()
	args := []string{"run", "--detach", "--network", "none"}
	add := func(yes bool, more ...string) {
		if yes {
			args = append(args, more...)
		}
	}
	add(c.Name != "", "--name", c.Name)
	add(c.StopSignal != "", "--stop-signal", c.StopSignal)
	add(c.Unconfined, "--security-opt", "seccomp=unconfined")
	add(c.NoNewPrivs, "--security-opt", "no-new-privileges")
	for key, value := range c.Labels {
		add(true, "--label", key+"="+value)
	}
	id, err := bed.Run(t.Context(), append(args, bedtest.Busybox, "/bin/sh", "-c", c.Script)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// The test's own context is done by now.
		if _, err := bed.Run(context.Background(), "rm", "--force", id); err != nil {
			t.Error(err)
		}
	})
	return id
}

// Podman answers on a socket like Docker's, but tells too little there.
func TestPodmansSocket(t *testing.T) {
	testenv.NeedPodman(t)
	d := New(bedtest.Up(t, "").Socket())
	defer d.Close()
	if _, err := d.List(t.Context()); !errors.Is(err, engine.ErrIncompatible) {
		t.Errorf("List = %v, want ErrIncompatible", err)
	}
}
