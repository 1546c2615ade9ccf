// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/testenv"
	"github.com/whittle-sec/whittle/testbed/bedtest"
)

// installing is what both tests do in a mount namespace: the executable where programs stay, and the directories that
// `whittle install` writes to, of which the host sees nothing.
const installing = `set -e
mount -t tmpfs tmpfs "$SCRATCH"
for dir in /usr/share/containers /var/lib; do
	[ -d $dir ] || continue
	mkdir -p "$SCRATCH$dir/upper" "$SCRATCH$dir/work"
	mount -t overlay overlay -o "lowerdir=$dir,upperdir=$SCRATCH$dir/upper,workdir=$SCRATCH$dir/work" $dir
done
mount --bind "$BIN" /usr/local/sbin
`

// programs is a directory with the executable in it, on a disk: whittle refuses to be installed from memory.
func programs(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "whittle-e2e")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	text, err := os.ReadFile(binary(t))
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "whittle"), text, 0o755)
	}
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// known waits until the agent knows a container as it should, and returns it.
func known(t *testing.T, d *daemon, name, engine string) {
	t.Helper()
	c := d.container(name, "sleeps", func(c api.Container) bool { return c.Distinct == 2 })
	if c.Late || c.Engine != engine || c.Workload.Image != lanesImage {
		t.Errorf("it was registered as %+v", c)
	}
}

// TestInstalledPodman: after `whittle install`, a plain `podman run` is enough.
func TestInstalledPodman(t *testing.T) {
	testenv.NeedBPF(t)
	testenv.NeedPodman(t)
	testenv.NeedTool(t, "unshare", "nsenter")
	e := bedtest.Up(t, "")
	bedtest.Podman(t, e, "load", "--quiet", "--input", markedArchive(t))
	d := startAgent(t, "--podman", "")
	// Podman's own idea of where hooks are: without a word about it in its configuration.
	text, err := os.ReadFile(filepath.Join(e.Dir, "containers.conf"))
	if err != nil {
		t.Fatal(err)
	}
	var conf strings.Builder
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "hooks_dir") {
			conf.WriteString(line)
		}
	}
	own := filepath.Join(t.TempDir(), "containers.conf")
	if err := os.WriteFile(own, []byte(conf.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	script := installing + `
before=$(find /usr/share/containers /var/lib/whittle 2>/dev/null | sort)
whittle install --engine podman --socket "$SOCKET" >&2
podman run --detach --network none --name installed "$IMAGE" >&2
echo started
read -r _
podman rm --force --time 0 installed >&2
whittle uninstall --engine podman --socket "$SOCKET" >&2
[ "$before" = "$(find /usr/share/containers /var/lib/whittle 2>/dev/null | sort)" ]
podman run --rm --network none --entrypoint '["/no"]' "$IMAGE" >&2 || [ $? = 127 ]`
	cmd := exec.Command("nsenter", "--target", strconv.Itoa(e.Holder.PID), "--mount", "--",
		"unshare", "--mount", "--propagation", "private", "sh", "-c", script)
	cmd.Env = append(os.Environ(), "SCRATCH="+t.TempDir(), "BIN="+programs(t), "SOCKET="+d.socket, "IMAGE="+lanesImage,
		"CONTAINERS_CONF="+own, "CONTAINERS_STORAGE_CONF="+filepath.Join(e.Dir, "storage.conf"),
		"PATH=/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin")
	var said output
	cmd.Stderr = &said
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	started := make([]byte, len("started\n"))
	if _, err := out.Read(started); err == nil {
		known(t, d, "installed", "podman")
	}
	fmt.Fprintln(in)
	if err := cmd.Wait(); err != nil || string(started) != "started\n" {
		t.Fatalf("%v: %s", err, &said)
	}
	d.forgotten()
}

// TestInstalledDocker: after `whittle install` and a reload, a plain `docker run` is enough, and after `whittle uninstall` what was
// made meanwhile still starts.
func TestInstalledDocker(t *testing.T) {
	testenv.NeedBPF(t)
	testenv.NeedDocker(t)
	bed := bedtest.UpDocker(t, map[string]any{"debug": false})
	run := func(args ...string) string {
		t.Helper()
		out, err := bed.Run(t.Context(), args...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	run("load", "--quiet", "--input", markedArchive(t))
	d := startAgent(t, "--podman", "")
	inside := func(script string) {
		t.Helper()
		script = fmt.Sprintf("SCRATCH=%q BIN=%q SOCKET=%q\n", t.TempDir(), programs(t), d.socket) + script
		if _, err := bed.Enter(t.Context(), "sh", "-c", script); err != nil {
			t.Fatal(err)
		}
	}
	reloaded := func(runtime string) {
		t.Helper()
		if err := bed.Reload(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "docker's default runtime is "+runtime, func() (bool, string) {
			now := run("info", "--format", "{{.DefaultRuntime}}")
			return now == runtime, now
		})
	}
	before, err := os.ReadFile(filepath.Join(bed.ConfigDir(), "daemon.json"))
	if err != nil {
		t.Fatal(err)
	}
	inside(installing + `/usr/local/sbin/whittle install --engine docker --socket "$SOCKET" >&2`)
	reloaded("whittle")
	run("run", "--detach", "--network", "none", "--name", "installed", lanesImage)
	known(t, d, "installed", "docker")
	run("kill", "installed")
	d.forgotten()
	uninstall := fmt.Sprintf("/usr/local/sbin/whittle uninstall --engine docker --socket %q >&2", d.socket)
	// Its data-root is not where Docker's is, and where Docker's is there are none of these containers.
	inside(`mkdir -p /var/lib/docker && mount --bind ` + filepath.Join(bed.Dir(), "root") + " /var/lib/docker\n" + uninstall)
	reloaded("runc")
	inside(uninstall)
	run("start", "installed")
	run("rm", "--force", "installed")
	inside(uninstall)
	if after, err := os.ReadFile(filepath.Join(bed.ConfigDir(), "daemon.json")); err != nil || string(after) != string(before) {
		t.Errorf("daemon.json is %s (%v), and was %s", after, err, before)
	}
}
