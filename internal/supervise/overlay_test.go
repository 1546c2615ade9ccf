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
