// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/whittle-sec/whittle/internal/engine/docker"
	"github.com/whittle-sec/whittle/internal/image"
	"github.com/whittle-sec/whittle/internal/renew"
	"github.com/whittle-sec/whittle/internal/testenv"
	"github.com/whittle-sec/whittle/testbed/bedtest"
	askers "github.com/whittle-sec/whittle/testbed/load"
)

// dockerWithImage is a private Docker with the service, and its command line.
func dockerWithImage(t *testing.T) (e *docker.Docker, run func(args ...string) string) {
	t.Helper()
	testenv.NeedDocker(t)
	testenv.NeedBPF(t)
	testenv.NeedTool(t, "go")
	bin, err := buildRenewed()
	if err != nil {
		t.Fatal(err)
	}
	bed := bedtest.UpDocker(t, nil)
	run = func(args ...string) string {
		t.Helper()
		out, err := bed.Run(t.Context(), args...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	config := image.Config{Name: renewedImage}
	config.Entrypoint = []string{"/service"}
	run("load", "--quiet", "--input", bedtest.Archive(t, config, []image.File{
		image.Dir("proc", 0o555), image.Dir("sys", 0o555), image.Dir("dev", 0o755), image.Dir("etc", 0o755), program(t, bin, "service"),
	}))
	e = docker.New(bed.Socket())
	t.Cleanup(e.Close)
	return e, run
}

// Docker's containers are renewed as Podman's are, and go back as they do.
func TestRenewedByDocker(t *testing.T) {
	t.Parallel()
	e, run := dockerWithImage(t)
	b := &renewBed{dir: filepath.Join(t.TempDir(), "renew"), addr: "127.0.0.1:" + freePort(t)}
	run("run", "--detach", "--network", "host", "--name", "web", "--env", "WHO=first", renewedImage, b.addr)
	// The bed has a network namespace of its own, in which its containers are.
	c, err := e.Inspect(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", c.PID))
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	host := askers.Target{Addr: b.addr, NetNS: fmt.Sprintf("/proc/self/fd/%d", ns.Fd())}
	talk := askers.HTTP("/", "served by")
	eventually(t, "the service answers", func() (bool, string) {
		err := host.Ask(t.Context(), talk)
		return err == nil, fmt.Sprint(err)
	})
	clients := askers.Start(t.Context(), host, talk, askers.Load{Workers: 4, PerConnection: 1, Timeout: patience})
	r := &renew.Runner{Engine: e, Dir: b.dir}
	for _, tt := range []struct {
		mode     string
		strategy renew.Strategy
		want     renew.Outcome
	}{
		{"exit", renew.Overlap, renew.RolledBack}, {"exit", renew.Hold, renew.RolledBack},
		{"", renew.Overlap, renew.Renewed}, {"", renew.Hold, renew.Renewed},
	} {
		q := b.request(tt.mode, tt.strategy)
		q.Changes.Env["MODE"] = tt.mode
		result := renewed(t, r, q)
		t.Logf("%s: %s, gap %v, %d waited, took %v", tt.strategy, result.Outcome, result.Gap, result.Held, result.Took)
		if result.Outcome != tt.want {
			t.Errorf("%s %s: %s", tt.mode, tt.strategy, describe(result))
		}
		if names := run("ps", "--all", "--format", "{{.Names}}"); strings.TrimSpace(names) != "web" {
			t.Errorf("containers: %s", names)
		}
	}
	if stats := clients.Stop(); stats.Failed > 0 {
		t.Error(stats)
	}
	run("rm", "--force", "web")
}
