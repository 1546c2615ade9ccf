// SPDX-License-Identifier: Apache-2.0

package twins

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/whittle-sec/whittle/internal/testenv"
	"github.com/whittle-sec/whittle/testbed"
	"github.com/whittle-sec/whittle/testbed/bedtest"
	"github.com/whittle-sec/whittle/testbed/load"
)

// contained is a build of a twin in a container of Podman, with its default profile.
type contained struct {
	load.Target
	name string
	boot time.Duration
}

func run(t *testing.T, e *testbed.Env, twin Twin, img Image, flags ...string) contained {
	t.Helper()
	port := freePort(t)
	c := contained{Target: twin.Target(port), name: fmt.Sprintf("twin-%d", port)}
	args := append([]string{"run", "--detach", "--network", "host", "--name", c.name}, flags...)
	bedtest.Podman(t, e, append(append(args, img.Name), twin.Command(port)...)...)
	started := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		err := c.Ask(ctx, twin.Talk())
		if err == nil {
			c.boot = time.Since(started)
			return c
		}
		if ctx.Err() != nil || bedtest.Podman(t, e, "inspect", "--format", "{{.State.Running}}", c.name) != "true" {
			t.Fatalf("%s does not serve: %v; %s", img.Name, err, bedtest.Podman(t, e, "logs", c.name))
		}
	}
}

// TestContainers: what is built serves in containers, under the engine's own profile, and the exploits get their shell from
// production there.
func TestContainers(t *testing.T) {
	testenv.NeedPodman(t)
	testenv.NeedGCC(t)
	testenv.NeedTool(t, "apt-get", "dpkg-source", "make", "memcached", "gunicorn")
	e := bedtest.Up(t, "")
	for _, build := range []func(context.Context, string) (Twin, error){Vulnd, Memcached, Flask} {
		twin := built(t, build)
		if err := twin.Load(t.Context(), e); err != nil {
			t.Fatal(err)
		}
		for _, img := range []Image{twin.Production, twin.Oracle, twin.Stock} {
			if img.Name == "" {
				continue
			}
			t.Run(img.Name, func(t *testing.T) {
				c := run(t, e, twin, img, "--env", "ASAN_OPTIONS=detect_leaks=0")
				t.Logf("serves %v after podman run has returned", c.boot.Round(time.Millisecond))
				if err := c.Ask(t.Context(), twin.Rare()); err != nil {
					t.Error(err)
				}
				stats := load.Run(t.Context(), c.Target, twin.Talk(), load.Load{Workers: 2, For: 300 * time.Millisecond, PerConnection: 1})
				t.Log(stats)
				if stats.Failed > 0 || stats.Requests < 10 {
					t.Error(stats)
				}
				bedtest.Podman(t, e, "stop", "--time", "10", c.name)
				if code := bedtest.Podman(t, e, "inspect", "--format", "{{.State.ExitCode}}", c.name); code != "0" {
					t.Errorf("told to stop, it ends with %s; %s", code, bedtest.Podman(t, e, "logs", c.name))
				}
			})
		}
		for _, exploit := range twin.Exploits() {
			t.Run(twin.Name+"/"+exploit.Name, func(t *testing.T) {
				c := run(t, e, twin, twin.Production)
				if shell, err := exploit.Run(t.Context(), c.Target); !shell {
					t.Errorf("no shell: %v; %s", err, bedtest.Podman(t, e, "logs", c.name))
				}
				bedtest.Podman(t, e, "rm", "--force", "--time", "1", c.name)
			})
		}
	}
}
