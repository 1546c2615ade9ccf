// SPDX-License-Identifier: Apache-2.0

package units

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/whittle-sec/whittle/internal/testenv"
)

// What systemd would do to this machine's kernel from a privileged container.
var masked = []string{
	"systemd-sysctl.service", "systemd-modules-load.service", "systemd-binfmt.service", "proc-sys-fs-binfmt_misc.automount",
	"systemd-remount-fs.service", "systemd-random-seed.service", "systemd-udevd.service", "systemd-udev-trigger.service",
	"sys-kernel-debug.mount", "sys-kernel-tracing.mount",
}

// podmanFiles are what /t/podman is, and its configuration.
var podmanFiles = map[string]string{
	"podman":          "#!/bin/sh\nexport CONTAINERS_CONF=/t/containers.conf CONTAINERS_STORAGE_CONF=/t/storage.conf\nexec podman \"$@\"\n",
	"containers.conf": "[containers]\ndefault_ulimits=[\"nofile=20000:20000\",\"nproc=32768:32768\"]\n[engine]\ncgroup_manager=\"cgroupfs\"\nevents_logger=\"file\"\nruntime=\"crun\"\n",
	"storage.conf":    "[storage]\ndriver=\"vfs\"\nrunroot=\"/run/storage\"\ngraphroot=\"/var/storage\"\n",
}

const makeImage = `set -e
mkdir -p /tmp/root/etc
tar -C /tmp/root -c . | /t/podman import - localhost/web:1
/t/podman tag localhost/web:1 localhost/web:asan
# crun does not work where both versions of cgroups are mounted, unless it cannot tell.
[ ! -e /sys/fs/cgroup/unified/cgroup.controllers ] || mount --bind /dev/null /sys/fs/cgroup/unified/cgroup.controllers
`

// The units of real containers: conmon is the main process, the container's status is the unit's, and what is left of one is
// removed before the other starts.
func TestContainersUnderSystemd(t *testing.T) {
	testenv.NeedRuntime(t, "crun")
	side := func(name, image string) Container {
		return Container{
			Podman: "/t/podman", Name: name, Image: image, Command: []string{"/t/prog", "serve", map[bool]string{true: "production", false: "oracle"}[name == "web"], "/t/web"},
			// This test's own program may need the libraries of this machine.
			Flags:       []string{"--network=host", "--volume=/t:/t", "--log-driver=none", "--volume=/usr:/usr:ro", "--volume=/lib:/lib:ro", "--volume=/lib64:/lib64:ro"},
			StopTimeout: 2 * time.Second, Pull: "never",
		}
	}
	missing := side("gone-oracle", "localhost/none:1")
	gone := side("gone", "localhost/web:1")
	gone.Command[2], gone.Command[3] = "production", "/t/gone"
	var files []File
	for _, c := range []Containers{
		{Production: side("web", "localhost/web:1"), Oracle: side("web-oracle", "localhost/web:asan")},
		{Production: gone, Oracle: missing},
	} {
		units, err := c.Units()
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, units...)
	}
	h := BootPodman(t, files...).host
	WritePodman(Host{h})
	defer h.try("systemctl", "stop", "web-oracle", "web", "gone") // their control groups are this machine's
	h.run("systemctl", "start", "web")
	h.serves("web", "production")
	h.run("systemctl", "start", "web-oracle")
	h.serves("web", "oracle")
	h.run("/t/podman", "kill", "--signal=USR1", "web-oracle")
	h.is("web", "active")
	h.serves("web", "production")
	h.until("web", "/t/podman", "ps", "--all", "--format={{.Names}}")
	h.run("/t/prog", "switch", "web.service", "web-oracle.service")
	h.serves("web", "oracle")
	h.run("/t/podman", "kill", "web-oracle")
	h.is("web", "active")
	h.serves("web", "production")
	if diff := cmp.Diff([]string{"production", "oracle", "production", "oracle", "production"}, h.alternate("web")); diff != "" {
		t.Errorf("who started (-want +got):\n%s", diff)
	}
	h.run("systemctl", "start", "gone")
	h.serves("gone", "production")
	if _, err := h.try("systemctl", "start", "gone-oracle"); err == nil {
		t.Error("an oracle without an image started")
	}
	h.is("gone", "active")
	h.serves("gone", "production")
	if diff := cmp.Diff([]string{"production", "production"}, h.alternate("gone")); diff != "" {
		t.Errorf("who started (-want +got):\n%s", diff)
	}
}
