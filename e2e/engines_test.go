// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/engine/oci"
	"github.com/whittle-sec/whittle/internal/image"
	"github.com/whittle-sec/whittle/internal/syscalls"
	"github.com/whittle-sec/whittle/internal/testenv"
	"github.com/whittle-sec/whittle/testbed/bedtest"
)

// starter of containers of lanesImage, which make one marked call and sleep, through one engine that was told of whittle.
type starter struct {
	name, engine string
	image        string // what the agent calls it
	// start one; off is by the label or the annotation that says so.
	start  func(t *testing.T, name string, off bool) error
	remove func(t *testing.T, name string)
}

// wrapper is a name under which whittle is an OCI runtime, for an agent's socket.
func wrapper(t *testing.T, socket, runtime string) string {
	t.Helper()
	testenv.NeedRuntime(t, runtime)
	real, err := exec.LookPath(runtime)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), oci.WrapperPrefix+runtime)
	text, err := json.Marshal(oci.WrapperConfig{Runtime: real, Socket: socket})
	if err == nil {
		err = errors.Join(os.WriteFile(name+".json", text, 0o600), os.Symlink(binary(t), name))
	}
	if err != nil {
		t.Fatal(err)
	}
	return name
}

func markedFiles(t *testing.T) []image.File {
	t.Helper()
	return []image.File{
		image.Dir("proc", 0o555), image.Dir("sys", 0o555), image.Dir("dev", 0o755), image.Dir("etc", 0o755),
		program(t, compile(t, "markers.c", "-DMARKS={__NR_getpgrp,0},{__NR_getrusage,100000}"), "service"),
	}
}

func markedArchive(t *testing.T) string {
	t.Helper()
	config := image.Config{Name: lanesImage}
	config.Entrypoint = []string{"/service"}
	return bedtest.Archive(t, config, markedFiles(t))
}

// runFlags of podman and docker.
func runFlags(name string, off bool, how string) []string {
	args := []string{"run", "--detach", "--network", "none", "--name", name}
	if off {
		args = append(args, how, oci.ModeKey+"="+oci.ModeOff)
	}
	return append(args, lanesImage)
}

// podmanStarter has the hooks that `whittle install` writes.
func podmanStarter(t *testing.T, socket, runtime string) starter {
	t.Helper()
	testenv.NeedPodman(t)
	testenv.NeedRuntime(t, runtime)
	e := bedtest.Up(t, runtime)
	bedtest.Podman(t, e, "load", "--quiet", "--input", markedArchive(t))
	for name, text := range oci.HookConfig(binary(t), socket) {
		if err := os.WriteFile(filepath.Join(e.HooksDir(), name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return starter{
		name: "podman with " + runtime, engine: "podman", image: lanesImage,
		start: func(t *testing.T, name string, off bool) error {
			_, err := e.Run(t.Context(), runFlags(name, off, "--annotation")...)
			return err
		},
		remove: func(t *testing.T, name string) { bedtest.Podman(t, e, "rm", "--force", "--time", "0", name) },
	}
}

// rootlessStarter is a user's Podman.
func rootlessStarter(t *testing.T, socket string) starter {
	t.Helper()
	testenv.NeedPodman(t)
	testenv.NeedRuntime(t, "runc")
	testenv.NeedTool(t, "newuidmap", "newgidmap", "unshare", "nsenter", "setpriv")
	u := newUser(t)
	text, err := os.ReadFile(markedArchive(t))
	if err == nil {
		err = os.WriteFile(filepath.Join(u.dir, "image.tar"), text, 0o644)
	}
	for name, text := range oci.HookConfig(binary(t), socket) {
		err = errors.Join(err, os.WriteFile(filepath.Join(u.dir, "hooks.d", name), text, 0o644))
	}
	if err != nil {
		t.Fatal(err)
	}
	u.podman(t, "load", "--quiet", "--input", filepath.Join(u.dir, "image.tar"))
	return starter{
		name: "rootless podman", engine: "podman", image: lanesImage,
		start: func(t *testing.T, name string, off bool) error {
			args := append([]string{"--runtime", "runc"}, runFlags(name, off, "--annotation")...)
			if out, err := u.command("--groups="+strconv.Itoa(u.group), args...).CombinedOutput(); err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			return nil
		},
		remove: func(t *testing.T, name string) { u.podman(t, "rm", "--force", "--time", "0", name) },
	}
}

func dockerStarter(t *testing.T, socket string) starter {
	t.Helper()
	testenv.NeedDocker(t)
	bed := bedtest.UpDocker(t, map[string]any{
		"default-runtime": "whittle",
		"runtimes":        map[string]any{"whittle": map[string]any{"path": wrapper(t, socket, "runc")}},
	})
	run := func(t *testing.T, args ...string) {
		t.Helper()
		if _, err := bed.Run(t.Context(), args...); err != nil {
			t.Fatal(err)
		}
	}
	run(t, "load", "--quiet", "--input", markedArchive(t))
	return starter{
		name: "docker", engine: "docker", image: lanesImage,
		start: func(t *testing.T, name string, off bool) error {
			_, err := bed.Run(t.Context(), runFlags(name, off, "--label")...)
			return err
		},
		remove: func(t *testing.T, name string) { run(t, "rm", "--force", name) },
	}
}

func containerdStarter(t *testing.T, socket string) starter {
	t.Helper()
	testenv.NeedContainerd(t)
	bed := bedtest.UpContainerd(t)
	if _, err := bed.Ctr(t.Context(), "image", "import", markedArchive(t)); err != nil {
		t.Fatal(err)
	}
	runc := wrapper(t, socket, "runc")
	return starter{
		name: "containerd", engine: "oci", image: "service",
		start: func(t *testing.T, name string, off bool) error {
			args := append(bed.RunArgs(name), "--detach", "--runc-binary", runc)
			if off {
				args = append(args, "--annotation", oci.ModeKey+"="+oci.ModeOff)
			}
			_, err := bed.Ctr(t.Context(), append(args, lanesImage, name)...)
			return err
		},
		remove: func(t *testing.T, name string) {
			if err := bed.Remove(t.Context(), name); err != nil {
				t.Fatal(err)
			}
		},
	}
}

// runtimeCommand of an OCI runtime. crun refuses a host that has controllers of both cgroup versions.
func runtimeCommand(path string, args ...string) *exec.Cmd {
	const script = `v2=/sys/fs/cgroup/unified/cgroup.controllers
if [ -n "$(cat $v2 2>/dev/null)" ]; then mount --bind /dev/null $v2 || exit 1; fi
exec "$0" "$@" </dev/null >/dev/null`
	return exec.Command("unshare", append([]string{"--mount", "--propagation", "private", "sh", "-c", script, path}, args...)...)
}

// bundleStarter has no engine at all.
func bundleStarter(t *testing.T, socket, runtime string) starter {
	t.Helper()
	testenv.NeedRuntime(t, "runc") // writes the bundle's config.json
	path := wrapper(t, socket, runtime)
	root := t.TempDir()
	command := func(args ...string) error {
		cmd := runtimeCommand(path, append([]string{"--root", root}, args...)...)
		var stderr output
		cmd.Stderr = &stderr
		cmd.WaitDelay = glance
		if err := cmd.Run(); err != nil && !errors.Is(err, exec.ErrWaitDelay) {
			return fmt.Errorf("%s %q: %w: %s", runtime, args, err, &stderr)
		}
		return nil
	}
	return starter{
		name: "a bundle of " + runtime, engine: "oci", image: "service",
		start: func(t *testing.T, name string, off bool) error {
			b := newBundle(t, nil, markedFiles(t), func(s *specs.Spec) {
				s.Process.Args = []string{"/service"}
				s.Linux.CgroupsPath = "/" + name
				if off {
					s.Annotations = map[string]string{oci.ModeKey: oci.ModeOff}
				}
			})
			return command("run", "--detach", "--bundle", b.dir, name)
		},
		remove: func(t *testing.T, name string) {
			if err := command("delete", "--force", name); err != nil {
				t.Fatal(err)
			}
		},
	}
}

func starters(t *testing.T, socket string, each func(*testing.T, starter)) {
	for _, tt := range []struct {
		name string
		make func(*testing.T) starter
	}{
		{"podman runc", func(t *testing.T) starter { return podmanStarter(t, socket, "runc") }},
		{"podman crun", func(t *testing.T) starter { return podmanStarter(t, socket, "crun") }},
		{"docker", func(t *testing.T) starter { return dockerStarter(t, socket) }},
		{"containerd", func(t *testing.T) starter { return containerdStarter(t, socket) }},
		{"bundle runc", func(t *testing.T) starter { return bundleStarter(t, socket, "runc") }},
		{"bundle crun", func(t *testing.T) starter { return bundleStarter(t, socket, "crun") }},
	} {
		t.Run(tt.name, func(t *testing.T) { each(t, tt.make(t)) })
	}
}

// TestEnginesLearn: whatever starts a container, it is known before its first call, and what it taught is exact.
func TestEnginesLearn(t *testing.T) {
	testenv.NeedBPF(t)
	d := startAgent(t, "--podman", "")
	starters(t, d.socket, func(t *testing.T, s starter) {
		d, name := d.as(t), containerID(strings.ReplaceAll(s.name, " ", "-"))
		if err := s.start(t, name, false); err != nil {
			t.Fatal(err)
		}
		c := d.container(name, "sleeps", func(c api.Container) bool { return c.Distinct == 2 })
		if c.Late || c.Engine != s.engine || c.Workload.Image != s.image || c.CgroupID <= 1 {
			t.Errorf("it was registered as %+v", c)
		}
		if named := strings.HasPrefix(c.Workload.Digest, "sha256:"); named != (s.image == lanesImage) {
			t.Errorf("its digest is %q", c.Workload.Digest)
		}
		s.remove(t, name)
		d.forgotten()
		p := d.policy(c.WorkloadID)
		balanced(t, p)
		if got, want := service(p, syscalls.X86_64), numbers(t, "getpgrp", "clock_nanosleep"); got != want {
			t.Errorf("the service's: %v, want %v", got.Names(syscalls.X86_64), want.Names(syscalls.X86_64))
		}
	})
}

// TestEnginesHandOver: whatever starts a container, it starts under the filter that the agent gave, and its listener arrives
// where the agent said. Without the agent it starts all the same.
func TestEnginesHandOver(t *testing.T) {
	testenv.NeedRoot(t)
	a := newAsked(t)
	handsOver := func(t *testing.T, s starter) {
		name := containerID(strings.ReplaceAll(s.name, " ", "-") + "-held")
		a.answer(t)
		if err := s.start(t, name, false); err != nil {
			t.Fatal(err)
		}
		eventually(t, "its first call was held", func() (bool, string) { held := a.held(); return held == 1, fmt.Sprint(held) })
		p := a.last()
		if p.Container.Engine != s.engine || p.Container.Workload.Image != s.image || p.Container.Name != name {
			t.Errorf("the agent was asked about %+v", p.Container)
		}
		if wrapped := s.engine != "podman"; wrapped != (p.Runtime.Path != "") {
			t.Errorf("the runtime is %+v", p.Runtime)
		}
		s.remove(t, name)
		if err := s.start(t, name+"-off", true); err != nil {
			t.Errorf("when it is to be left alone: %v", err)
		}
		if p := a.last(); p.Container.Name != name {
			t.Errorf("the agent was asked about %+v", p.Container)
		}
		s.remove(t, name+"-off")
		a.hangUp(t)
		if err := s.start(t, name+"-alone", false); err != nil {
			t.Errorf("without an agent: %v", err)
		}
		s.remove(t, name+"-alone")
	}
	starters(t, a.socket, handsOver)
	t.Run("rootless podman", func(t *testing.T) { handsOver(t, rootlessStarter(t, a.socket)) })
}
