// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/whittle-sec/whittle/internal/image"
)

// bundle of an OCI runtime, without an engine.
type bundle struct {
	dir  string
	root string // the runtime's state
}

// newBundle with the agent's hooks in its config.json. It shares the host's network.
func newBundle(t *testing.T, d *daemon, files []image.File, edit func(*specs.Spec)) bundle {
	t.Helper()
	b := bundle{dir: t.TempDir(), root: t.TempDir()}
	unpack(t, filepath.Join(b.dir, "rootfs"), files)
	cmd := exec.Command("runc", "spec")
	cmd.Dir = b.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("runc spec: %v: %s", err, out)
	}
	name := filepath.Join(b.dir, "config.json")
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var spec specs.Spec
	if err := json.Unmarshal(text, &spec); err != nil {
		t.Fatal(err)
	}
	spec.Process.Terminal, spec.Root.Readonly = false, false
	spec.Process.Rlimits = nil
	spec.Process.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	spec.Process.Capabilities.Bounding = append(spec.Process.Capabilities.Bounding, "CAP_SETUID", "CAP_SETGID", "CAP_CHOWN", "CAP_DAC_OVERRIDE")
	spec.Process.Capabilities.Effective = spec.Process.Capabilities.Bounding
	spec.Process.Capabilities.Permitted = spec.Process.Capabilities.Bounding
	var namespaces []specs.LinuxNamespace
	for _, ns := range spec.Linux.Namespaces {
		if ns.Type != specs.NetworkNamespace {
			namespaces = append(namespaces, ns)
		}
	}
	spec.Linux.Namespaces = namespaces
	spec.Hooks = &specs.Hooks{}
	if d != nil {
		hook := func(stage string) []specs.Hook {
			return []specs.Hook{{Path: d.bin, Args: []string{"whittle", "hook", stage, "--socket", d.socket}}}
		}
		spec.Hooks.CreateRuntime, spec.Hooks.Poststop = hook("createRuntime"), hook("poststop")
	}
	edit(&spec)
	if text, err = json.Marshal(spec); err == nil {
		err = os.WriteFile(name, text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// containerID names a container's cgroups too, which all processes of the host share.
func containerID(name string) string { return fmt.Sprintf("whittle-e2e-%d-%s", os.Getpid(), name) }

// command of runc that runs a container to its end.
func (b bundle) command(ctx context.Context, id string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "runc", "--root", b.root, "run", "--bundle", b.dir, id)
	cmd.Cancel = func() error { return b.remove(id) } // which ends runc too
	return cmd
}

// kill a container's init.
func (b bundle) kill(t *testing.T, id, signal string) {
	t.Helper()
	if out, err := exec.Command("runc", "--root", b.root, "kill", id, signal).CombinedOutput(); err != nil {
		t.Errorf("runc kill: %v: %s", err, out)
	}
}

// remove what is left of a container. It may be gone.
func (b bundle) remove(id string) error {
	if _, err := os.Stat(filepath.Join(b.root, id)); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	out, err := exec.Command("runc", "--root", b.root, "delete", "--force", id).CombinedOutput()
	if err != nil && !strings.Contains(string(out), "does not exist") {
		return errors.New(string(out))
	}
	return nil
}
