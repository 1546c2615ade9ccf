// SPDX-License-Identifier: Apache-2.0

package units

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What the tests of those who import this package need of its systemd in a container.

// Host is a container in which systemd is init.
type Host struct{ *host }

// BootPodman is a systemd with a Podman below it, which /t/podman is.
func BootPodman(t *testing.T, files ...File) Host {
	t.Helper()
	for _, name := range masked {
		files = append(files, File{name, ""}) // an empty file masks as a link to /dev/null does
	}
	return Host{bootWith(t, files, "--privileged")}
}

// Dir is /t in the container.
func (h Host) Dir() string { return h.dir }

// Run a command, which has to succeed.
func (h Host) Run(command ...string) string { h.t.Helper(); return h.run(command...) }

// Try a command.
func (h Host) Try(command ...string) (string, error) { return h.try(command...) }

// Stop units, also when the test is over.
func (h Host) Stop(units ...string) {
	if _, err := h.env.Run(context.Background(), append([]string{"exec", h.name, "systemctl", "stop"}, units...)...); err != nil {
		h.t.Error(err)
	}
}

// Is waits for a unit's state.
func (h Host) Is(unit, state string) { h.t.Helper(); h.is(unit, state) }

// NetNS of the container, as a path.
func (h Host) NetNS() string {
	h.t.Helper()
	pid, err := h.env.Run(context.Background(), "inspect", "--format={{.State.Pid}}", h.name)
	if err != nil {
		h.t.Fatal(err)
	}
	return fmt.Sprintf("/proc/%s/ns/net", strings.TrimSpace(pid))
}

// WritePodman configures what /t/podman is, and makes its image, which is empty.
func WritePodman(h Host) {
	h.t.Helper()
	for name, text := range podmanFiles {
		if err := os.WriteFile(filepath.Join(h.dir, name), []byte(text), 0o755); err != nil {
			h.t.Fatal(err)
		}
	}
	h.run("sh", "-c", makeImage)
}
