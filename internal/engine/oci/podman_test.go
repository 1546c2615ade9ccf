// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/whittle-sec/whittle/internal/engine"
	"github.com/whittle-sec/whittle/internal/engine/podman"
	"github.com/whittle-sec/whittle/internal/testenv"
	"github.com/whittle-sec/whittle/testbed/bedtest"
)

// TestMain is also the hook: the runtime starts this binary with the arguments of HookConfig, and the notice is recorded in
// the directory that stands for the agent's socket.
func TestMain(m *testing.M) {
	if len(os.Args) == 5 && os.Args[1] == "hook" && os.Args[2] == Precreate {
		PrecreateHook(context.Background(), os.Stdin, os.Stdout, os.Stderr, func(_ context.Context, d Draft) (json.RawMessage, error) {
			text, err := json.Marshal(d)
			if err != nil {
				return nil, err
			}
			return nil, os.WriteFile(filepath.Join(os.Args[4], Precreate+"-"+d.Container.ID), text, 0o600)
		})
		os.Exit(0)
	}
	if len(os.Args) == 5 && os.Args[1] == "hook" {
		Hook(context.Background(), os.Args[2], os.Stdin, os.Stderr, func(_ context.Context, n Notice) error {
			text, err := json.Marshal(n)
			if err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(os.Args[4], n.Stage+"-"+n.Container.ID), text, 0o600)
		})
		os.Exit(0)
	}
	testenv.Main(m)
}

func TestUnderPodman(t *testing.T) {
	for _, runtime := range []string{"runc", "crun"} {
		t.Run(runtime, func(t *testing.T) {
			testenv.NeedPodman(t)
			testenv.NeedRuntime(t, runtime)
			testenv.NeedTool(t, "busybox")
			underPodman(t, runtime)
		})
	}
}

// underPodman compares what the hook learned with what Podman says of the container when it runs.
func underPodman(t *testing.T, runtime string) {
	e := bedtest.Up(t, runtime)
	bedtest.LoadBusybox(t, e)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	notices := t.TempDir()
	for name, text := range HookConfig(self, notices) {
		if err := os.WriteFile(filepath.Join(e.HooksDir(), name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	read := func(stage, id string) (n Notice) {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(notices, stage+"-"+id))
		if err == nil {
			err = json.Unmarshal(text, &n)
		}
		if err != nil {
			t.Fatalf("the hook recorded nothing: %v", err)
		}
		return n
	}
	p := podman.New(e.Socket())
	defer p.Close()
	id := bedtest.Podman(t, e, "run", "--detach", "--network", "none", "--name", "hooked", "--stop-signal", "QUIT",
		"--security-opt", "no-new-privileges", bedtest.Busybox, "/bin/sh", "-c", "while :; do sleep 1000; done")
	got := read(CreateRuntime, id)
	want, err := p.Inspect(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if got.Container.State != engine.Created {
		t.Errorf("state %s", got.Container.State)
	}
	if want.CgroupID <= 1 || want.MountNS == 0 {
		t.Fatalf("podman's container: %+v", want)
	}
	drafted(t, notices, got)
	c := got.Container
	c.State, c.StartedAt = want.State, want.StartedAt // it has been started since
	if fmt.Sprintf("%+v", c) != fmt.Sprintf("%+v", want) {
		t.Errorf("the hook describes\n%+v\nand podman\n%+v", c, want)
	}
	var digests engine.Digests
	if digest, err := digests.Of(want.Runtime.Path); err != nil || digest != got.RuntimeDigest {
		t.Errorf("runtime digest %s; the file's is %s (%v)", got.RuntimeDigest, digest, err)
	}
	var profile struct {
		DefaultAction string
		Syscalls      []struct{ Names []string }
	}
	if err := json.Unmarshal(got.Profile, &profile); err != nil || profile.DefaultAction != "SCMP_ACT_ERRNO" || len(profile.Syscalls) == 0 {
		t.Errorf("profile %.200s (%v)", got.Profile, err)
	}
	bedtest.Podman(t, e, "rm", "--force", "--time", "0", id)
	if gone := read(Poststop, id); gone.Container.ID != id || gone.Container.Engine != "podman" {
		t.Errorf("at its end: %+v", gone)
	}
	volatile(t, bedtest.Podman(t, e, "run", "--rm", "--network", "none", "--security-opt", "seccomp=unconfined",
		bedtest.Busybox, "/bin/sh", "-c", "echo unconfined"), notices)
	if runtime == "crun" { // runc knows no such thing
		id = bedtest.Podman(t, e, "run", "--detach", "--network", "none", "--cgroups", "disabled", bedtest.Busybox, "/bin/sh", "-c", "exit")
		if c := read(CreateRuntime, id).Container; c.CgroupID != 0 || c.MountNS == 0 {
			t.Errorf("without a cgroup of its own it is described as %+v", c)
		}
	}
}

// drafted checks that the container was described before it was created as it was afterwards.
func drafted(t *testing.T, notices string, created Notice) {
	t.Helper()
	var d Draft
	text, err := os.ReadFile(filepath.Join(notices, Precreate+"-"+created.Container.ID))
	if err == nil {
		err = json.Unmarshal(text, &d)
	}
	if err != nil {
		t.Errorf("the precreate hook recorded nothing: %v", err)
		return
	}
	want := created.Container
	want.PID, want.CgroupID, want.MountNS, want.Runtime = 0, 0, 0, engine.Runtime{}
	if fmt.Sprintf("%+v", d.Container) != fmt.Sprintf("%+v", want) {
		t.Errorf("before it was created it was\n%+v\nand then\n%+v", d.Container, want)
	}
	if d.Annotations[managerKey] != "libpod" || len(d.Profile) == 0 {
		t.Errorf("annotations %q, profile %.100s", d.Annotations, d.Profile)
	}
}

// volatile checks the notice of the container that ended by itself.
func volatile(t *testing.T, out, notices string) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(notices, CreateRuntime+"-*"))
	if err != nil || len(names) != 2 || out != "unconfined" {
		t.Fatalf("notices %q (%v), output %q", names, err, out)
	}
	ok := slices.ContainsFunc(names, func(name string) bool {
		text, err := os.ReadFile(name)
		var n Notice
		return err == nil && json.Unmarshal(text, &n) == nil && n.Container.Seccomp == engine.SeccompUnconfined &&
			len(n.Profile) == 0 && n.Container.Workload.Image == bedtest.Busybox && strings.HasPrefix(n.Container.Workload.Digest, "sha256:")
	})
	if !ok {
		t.Errorf("no notice describes the unconfined container: %q", names)
	}
}
