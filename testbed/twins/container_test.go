// SPDX-License-Identifier: Apache-2.0

package twins

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/whittle-sec/whittle/internal/oracle"
	"github.com/whittle-sec/whittle/internal/testenv"
	"github.com/whittle-sec/whittle/testbed"
	"github.com/whittle-sec/whittle/testbed/bedtest"
	"github.com/whittle-sec/whittle/testbed/load"
)

// contained is a build of a twin in a container of Podman, with its default profile.
type contained struct {
	load.Target
	name    string
	boot    time.Duration
	reports string // of an oracle: a directory
}

// run a container of a twin: production, or any other image.
func run(t *testing.T, e *testbed.Env, twin Twin, img Image) contained {
	t.Helper()
	return runWith(t, e, twin, img.Name, nil, "")
}

func runWith(t *testing.T, e *testbed.Env, twin Twin, name string, flags []string, reports string) contained {
	t.Helper()
	port := freePort(t)
	c := contained{Target: twin.Target(port), name: fmt.Sprintf("twin-%d", port), reports: reports}
	args := append([]string{"run", "--detach", "--network", "host", "--name", c.name}, flags...)
	bedtest.Podman(t, e, append(append(args, name), twin.Command(port)...)...)
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
			t.Fatalf("%s does not serve: %v; %s", name, err, logs(e, c.name))
		}
	}
}

// runOracle starts what whittle would start in production's place.
func runOracle(t *testing.T, e *testbed.Env, twin Twin) contained {
	t.Helper()
	dir := t.TempDir()
	spec := oracle.Spec{Kind: oracle.Kind(twin.Kind)}
	if twin.Oracle.Name != twin.Production.Name {
		spec.Image = twin.Oracle.Name
	}
	start, err := spec.Changes(oracle.Production{Image: twin.Production.Name}, dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range start.Files {
		name := filepath.Join(dir, f.Name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, f.Content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	reports := filepath.Join(dir, "reports")
	if err := os.Mkdir(reports, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(reports, 0o777|os.ModeSticky); err != nil {
		t.Fatal(err)
	}
	var flags []string
	for name, value := range start.Env {
		flags = append(flags, "--env", name+"="+value)
	}
	for _, m := range start.Mounts {
		options := map[bool]string{true: "ro", false: "rw"}[m.ReadOnly]
		flags = append(flags, "--volume", m.Source+":"+m.Destination+":"+options)
	}
	return runWith(t, e, twin, twin.Oracle.Name, flags, reports)
}

// faults are the texts of the oracle's reports.
func (c contained) faults(t *testing.T) (out []string) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(c.reports, "report*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if len(text) > 0 {
			out = append(out, string(text))
		}
	}
	return out
}

// logs are for messages only.
func logs(e *testbed.Env, name string) string {
	out, err := e.Run(context.Background(), "logs", name)
	return fmt.Sprint(out, err)
}

// works with every kind of request and under a little load.
func works(t *testing.T, e *testbed.Env, twin Twin, c contained) {
	t.Helper()
	t.Logf("serves %v after podman run has returned", c.boot.Round(time.Millisecond))
	for _, talk := range twin.Honest() {
		if err := c.Ask(t.Context(), talk); err != nil {
			t.Errorf("%v; %s", err, logs(e, c.name))
		}
	}
	stats := load.Run(t.Context(), c.Target, twin.Talk(), load.Load{Workers: 2, For: 300 * time.Millisecond, PerConnection: 1})
	t.Log(stats)
	if stats.Failed > 0 || stats.Requests < 10 {
		t.Error(stats)
	}
}

func stopped(t *testing.T, e *testbed.Env, c contained) {
	t.Helper()
	bedtest.Podman(t, e, "stop", "--time", "10", c.name)
	if code := bedtest.Podman(t, e, "inspect", "--format", "{{.State.ExitCode}}", c.name); code != "0" {
		t.Errorf("told to stop, it ends with %s; %s", code, logs(e, c.name))
	}
}

// TestContainers: what is built serves in containers, under the engine's own profile; the exploits get their shell from
// production there, and are reported by the oracle.
func TestContainers(t *testing.T) {
	testenv.NeedPodman(t)
	testenv.NeedGCC(t)
	testenv.NeedTool(t, "apt-get", "dpkg-source", "make", "memcached", "gunicorn", "php")
	e := bedtest.Up(t, "")
	for _, build := range []func(context.Context, string) (Twin, error){Vulnd, Memcached, Flask, PHP} {
		twin := built(t, build)
		if err := twin.Load(t.Context(), e); err != nil {
			t.Fatal(err)
		}
		t.Run(twin.Name+"/production", func(t *testing.T) {
			c := run(t, e, twin, twin.Production)
			works(t, e, twin, c)
			stopped(t, e, c)
		})
		if twin.Stock.Name != "" {
			t.Run(twin.Name+"/stock", func(t *testing.T) {
				c := run(t, e, twin, twin.Stock)
				works(t, e, twin, c)
				stopped(t, e, c)
			})
		}
		t.Run(twin.Name+"/oracle", func(t *testing.T) {
			c := runOracle(t, e, twin)
			works(t, e, twin, c)
			stopped(t, e, c)
			if faults := c.faults(t); len(faults) > 0 {
				t.Errorf("the oracle reports honest use: %+v", faults)
			}
		})
		for _, exploit := range twin.Exploits() {
			t.Run(twin.Name+"/"+exploit.Name, func(t *testing.T) { exploited(t, e, twin, exploit) })
		}
	}
}

func exploited(t *testing.T, e *testbed.Env, twin Twin, exploit Exploit) {
	production := run(t, e, twin, twin.Production)
	if shell, err := exploit.Run(t.Context(), production.Target); !shell {
		t.Errorf("production: no shell: %v; %s", err, logs(e, production.name))
	}
	bedtest.Podman(t, e, "rm", "--force", "--time", "0", production.name)
	hardened := runOracle(t, e, twin)
	if shell, err := exploit.Run(t.Context(), hardened.Target); shell || err == nil {
		t.Errorf("the oracle executes a shell: %v, %v", shell, err)
	}
	if faults := hardened.faults(t); len(faults) != 1 || !strings.Contains(faults[0], exploit.Reported) {
		t.Errorf("the oracle reports %q, want one report of %q; %s", faults, exploit.Reported, logs(e, hardened.name))
	} else if report, err := oracle.ReadReport("report.1", strings.NewReader(faults[0])); err != nil || report.Summary == "" || report.Location == "" {
		t.Errorf("the report is read as %+v (%v): %s", report, err, faults[0])
	} else {
		t.Log(report.Kind, report.Summary, report.Location)
	}
	bedtest.Podman(t, e, "rm", "--force", "--time", "0", hardened.name)
}
