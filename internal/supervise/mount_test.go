// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/whittle-sec/whittle/internal/testenv"
)

const mounts = `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
361 35 0:50 / / rw,relatime shared:7 propagate_from:2 - overlay overlay rw,lowerdir=/a
37 36 0:51 /a\040-\040tmpfs\040x /b rw - fuse.sshfs host:/ rw
38 36 0:51 / /b rw - ext4
39 36
`

func TestMountType(t *testing.T) {
	for _, test := range []struct {
		id   uint64
		want string
	}{{36, "ext3"}, {361, "overlay"}, {37, "fuse.sshfs"}, {38, ""}, {39, ""}, {3, ""}, {40, ""}} {
		if got, err := mountType(strings.NewReader(mounts), test.id); got != test.want || (err == nil) != (test.want != "") {
			t.Errorf("mount %d: got %q, %v, want %q", test.id, got, err, test.want)
		}
	}
	if got, err := mountType(strings.NewReader(strings.Repeat("x", 1<<20)), 1); err == nil {
		t.Errorf("an endless line gave %q", got)
	}
}

func FuzzMountType(f *testing.F) {
	f.Add(mounts, uint64(36))
	f.Fuzz(func(t *testing.T, table string, id uint64) {
		if fs, err := mountType(strings.NewReader(table), id); err == nil && !strings.Contains(table, " - "+fs+" ") {
			t.Errorf("%q of mount %d is not in %q", fs, id, table)
		}
	})
}

// In an overlay, as containers have, the kernel resolves no symbolic link from memory alone.
func TestSameFileInOverlay(t *testing.T) {
	testenv.NeedRoot(t)
	testenv.NeedTool(t, "unshare", "mount", "chroot", "ldd", "sh")
	dir := t.TempDir()
	lower := filepath.Join(dir, "lower")
	shell, err := filepath.EvalSymlinks("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	libraries, err := exec.Command("ldd", shell).Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range append(strings.Fields(string(libraries)), shell) {
		if !filepath.IsAbs(file) {
			continue
		}
		target := filepath.Join(lower, file)
		if file == shell {
			target = filepath.Join(lower, "/usr/bin/shell")
		}
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(target, content, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, to := range map[string]string{"/bin": "usr/bin", "/usr/bin/sh": "shell", "/usr/bin/away": "/../../usr/bin/sh", "/loop": "loop"} {
		if err := os.Symlink(to, filepath.Join(lower, name)); err != nil {
			t.Fatal(err)
		}
	}
	// All mounts end with the mount namespace, which ends with the shell.
	cmd := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-ec", `
		cd "$1"; mkdir merged; mount -t tmpfs tmpfs merged; mkdir merged/upper merged/work merged/root
		mount -t overlay overlay -o "lowerdir=$1/lower,upperdir=$1/merged/upper,workdir=$1/merged/work" merged/root
		exec chroot merged/root /bin/sh -c 'echo $$; read x <&3'`, "sh", dir)
	cmd.Stderr = os.Stderr
	_, hear := pipeFor(t, cmd)
	pid, err := strconv.Atoi(hear())
	if err != nil {
		t.Fatal(err)
	}
	same := []string{"/usr/bin/shell", "/usr/bin/sh", "/bin/sh", "/bin/shell", "/bin/away"}
	for _, path := range append(slices.Clone(same), "/loop", "/bin", "/bin/nothing", shell, filepath.Join(lower, "/usr/bin/shell")) {
		if want := slices.Contains(same, path); SameFile(pid, path) != want {
			t.Errorf("SameFile(%q) = %v, want %v", path, !want, want)
		}
	}
}
