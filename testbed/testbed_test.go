// SPDX-License-Identifier: Apache-2.0

package testbed_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/whittle-sec/whittle/internal/image"
	"github.com/whittle-sec/whittle/internal/testenv"
	"github.com/whittle-sec/whittle/testbed"
	"github.com/whittle-sec/whittle/testbed/bedtest"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// What is made of installed packages runs unmodified. Each command ends by itself and proves that libraries, users and
// configuration are there.
func TestServices(t *testing.T) {
	testenv.NeedPodman(t)
	testenv.NeedTool(t, "dpkg", "ldd")
	e := bedtest.Up(t, "")
	for _, tt := range []struct {
		name, pkg, follow string
		command           []string
		want              string
	}{
		{"redis-server", "redis-server", "^redis", []string{"/usr/bin/redis-server", "--version"}, "Redis server v="},
		{"nginx", "nginx", "^(nginx|libnginx)", []string{"/usr/sbin/nginx", "-t"}, "test is successful"},
		{"memcached", "memcached", "", []string{"/usr/bin/memcached", "-u", "memcache", "-V"}, "memcached 1."},
		{"python3", "python3", "^(lib)?python3", []string{
			"/usr/bin/python3", "-c", "import ssl, json, socket, ctypes, pwd; print('python', pwd.getpwuid(0).pw_name)",
		}, "python root"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			testenv.NeedTool(t, tt.name)
			d := testbed.Debian{Packages: []string{tt.pkg}}
			if tt.follow != "" {
				d.Follow = regexp.MustCompile(tt.follow)
			}
			files, err := d.Files(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			config := image.Config{Name: "localhost/" + tt.pkg + ":test"}
			config.Entrypoint = tt.command[:1]
			bedtest.Load(t, e, config, files)
			run := append([]string{"run", "--rm", "--network", "none", config.Name}, tt.command[1:]...)
			out, err := e.Command(t.Context(), run...).CombinedOutput()
			if err != nil || !strings.Contains(string(out), tt.want) {
				t.Errorf("%q: %v, %s; want %q", tt.command, err, out, tt.want)
			}
		})
	}
}

// With a container that runs and one that was killed hard, Down leaves nothing behind.
func TestDown(t *testing.T) {
	testenv.NeedPodman(t)
	testenv.NeedTool(t, "busybox")
	e := bedtest.Up(t, "")
	bedtest.LoadBusybox(t, e)
	id := bedtest.Podman(t, e, "run", "--detach", "--network", "none", bedtest.Busybox, "/bin/busybox", "sleep", "1000")
	if err := os.Remove(e.Podman()); err != nil { // podman itself cannot help any more
		t.Fatal(err)
	}
	again, err := testbed.Open(e.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Down(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(e.Dir); !os.IsNotExist(err) {
		t.Errorf("%s is still there (%v)", e.Dir, err)
	}
	lines, err := exec.CommandContext(context.Background(), "ps", "-eo", "stat,args").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(lines)) {
		if strings.Contains(line, id) || strings.Contains(line, e.Dir) {
			t.Errorf("a process is left: %s", line)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(mounts), e.Dir) {
		t.Errorf("a mount is left (%v)", err)
	}
	for _, pattern := range []string{"/sys/fs/cgroup/*/libpod-" + id, "/sys/fs/cgroup/*/*/libpod-" + id, "/run/*/" + id} {
		left, err := filepath.Glob(pattern)
		if err != nil || len(left) > 0 {
			t.Errorf("%q are left (%v)", left, err)
		}
	}
	if err := again.Down(); err != nil {
		t.Errorf("a second time: %v", err)
	}
}

func TestUpRefusesWhatIsNotEmpty(t *testing.T) {
	dir := t.TempDir()
	precious := filepath.Join(dir, "precious")
	if err := os.WriteFile(precious, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := testbed.Up(t.Context(), dir, ""); err == nil {
		t.Error("Up in a directory with a file in it succeeded")
	}
	if _, err := os.Stat(precious); err != nil {
		t.Error(err)
	}
}
