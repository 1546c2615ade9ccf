// SPDX-License-Identifier: Apache-2.0

package podman

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/whittle-sec/whittle/internal/engine/enginetest"
	"github.com/whittle-sec/whittle/internal/testenv"
	"github.com/whittle-sec/whittle/testbed"
	"github.com/whittle-sec/whittle/testbed/bedtest"
)

func TestMain(m *testing.M) { testenv.Main(m) }

func TestConformance(t *testing.T) {
	for _, runtime := range []string{"runc", "crun"} {
		t.Run(runtime, func(t *testing.T) {
			testenv.NeedPodman(t)
			testenv.NeedRuntime(t, runtime)
			testenv.NeedTool(t, "busybox")
			e := bedtest.Up(t, runtime)
			bedtest.LoadBusybox(t, e)
			p := New(e.Socket())
			defer p.Close()
			enginetest.Conform(t, enginetest.Bench{
				Engine:  p,
				Image:   bedtest.Busybox,
				Runtime: runtime,
				Start:   func(t testing.TB, c enginetest.Container) string { return start(t, e, c) },
				Kill: func(t testing.TB, id string) {
					bedtest.Podman(t, e, "kill", id)
					bedtest.Podman(t, e, "wait", id)
				},
			})
		})
	}
}

func start(t testing.TB, e *testbed.Env, c enginetest.Container) string {
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
	if c.NoImage {
		add(true, "--rootfs", rootfs(t))
	} else {
		add(true, bedtest.Busybox)
	}
	add(true, "/bin/sh", "-c", c.Script)
	id := bedtest.Podman(t, e, args...)
	t.Cleanup(func() {
		// The test's own context is done by now.
		if _, err := e.Run(context.Background(), "rm", "--force", "--time", "0", id); err != nil {
			t.Error(err)
		}
	})
	return id
}

// rootfs is a root file system in a directory.
func rootfs(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for _, f := range bedtest.BusyboxFiles(t) {
		name := filepath.Join(dir, f.Path)
		var err error
		switch {
		case f.Mode.IsDir():
			err = os.Mkdir(name, f.Mode.Perm())
		case f.Link != "":
			err = os.Symlink(f.Link, name)
		case f.Source != "":
			var data []byte
			if data, err = os.ReadFile(f.Source); err == nil {
				err = os.WriteFile(name, data, f.Mode.Perm())
			}
		default:
			err = os.WriteFile(name, f.Data, f.Mode.Perm())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
