// SPDX-License-Identifier: Apache-2.0

package testbed_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/whittle-sec/whittle/internal/testenv"
	"github.com/whittle-sec/whittle/testbed/bedtest"
)

// With a container that runs, Down leaves nothing of a private Docker or containerd behind, even when the daemon was killed.
func TestDaemonsDown(t *testing.T) {
	testenv.NeedTool(t, "busybox")
	for _, tt := range []struct {
		name string
		up   func(*testing.T) (dir string, down func() error)
	}{
		{"docker", func(t *testing.T) (string, func() error) {
			testenv.NeedDocker(t)
			d := bedtest.UpDocker(t, nil)
			if _, err := d.Run(t.Context(), "run", "--detach", "--network", "none", bedtest.Busybox, "/bin/busybox", "sleep", "1000"); err != nil {
				t.Fatal(err)
			}
			return d.Dir(), d.Down
		}},
		{"containerd", func(t *testing.T) (string, func() error) {
			testenv.NeedContainerd(t)
			c := bedtest.UpContainerd(t)
			args := append(c.RunArgs("left"), "--detach", bedtest.Busybox, "left", "/bin/busybox", "sleep", "1000")
			if _, err := c.Ctr(t.Context(), args...); err != nil {
				t.Fatal(err)
			}
			if err := c.Kill(); err != nil {
				t.Fatal(err)
			}
			return c.Dir(), c.Down
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir, down := tt.up(t)
			if err := down(); err != nil {
				t.Fatal(err)
			}
			lines, err := exec.CommandContext(context.Background(), "ps", "-eo", "stat,args").Output()
			if err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(string(lines)) {
				if strings.Contains(line, dir) {
					t.Errorf("a process is left: %s", line)
				}
			}
			mounts, err := os.ReadFile("/proc/self/mountinfo")
			if err != nil || strings.Contains(string(mounts), dir) {
				t.Errorf("a mount is left (%v)", err)
			}
			left, err := filepath.Glob("/sys/fs/cgroup/*/whittle-bed-" + filepath.Base(dir))
			if err != nil || len(left) > 0 {
				t.Errorf("cgroups are left: %q (%v)", left, err)
			}
			if _, err := os.Stat(dir); !os.IsNotExist(err) {
				t.Errorf("%s is still there (%v)", dir, err)
			}
		})
	}
}
