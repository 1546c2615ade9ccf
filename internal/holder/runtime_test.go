// SPDX-License-Identifier: Apache-2.0

package holder

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/testenv"
)

// bundle whose command makes a directory, which is held.
func bundle(t *testing.T, listener string) string {
	t.Helper()
	dir := t.TempDir()
	for _, sub := range []string{"rootfs", "rootfs/proc", "rootfs/dev"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	const source = `#include <sys/stat.h>
int main(void) { return mkdir("/made", 0755) ? 1 : 0; }`
	in := filepath.Join(dir, "box.c")
	if err := os.WriteFile(in, []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("gcc", "-static", "-o", filepath.Join(dir, "rootfs/box"), in).CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v: %s", err, out)
	}
	names := []string{"mkdirat"}
	if runtime.GOARCH == "amd64" {
		names = append(names, "mkdir")
	}
	spec := specs.Spec{
		Version:     "1.0.2",
		Root:        &specs.Root{Path: "rootfs"},
		Process:     &specs.Process{Args: []string{"/box"}, Cwd: "/", NoNewPrivileges: true},
		Annotations: map[string]string{"of": "the bundle"},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs"},
		},
		Linux: &specs.Linux{
			Seccomp: &specs.LinuxSeccomp{
				DefaultAction: specs.ActAllow, ListenerPath: listener, ListenerMetadata: "meta",
				Syscalls: []specs.LinuxSyscall{{Names: names, Action: specs.ActNotify}},
			},
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace},
			},
		},
	}
	text, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// runtimeCommand runs a bundle. crun refuses hosts with cgroup v1 and v2 side by side, unless v2 has no controllers: a
// mount that only crun sees says so.
func runtimeCommand(t *testing.T, name, root, dir, id string) *exec.Cmd {
	t.Helper()
	args := []string{name, "--root", root, "run", "--bundle", dir, id}
	if name == "crun" {
		args = slices.Insert(args, 1, "--cgroup-manager=disabled")
		const hybrid = "/sys/fs/cgroup/unified/cgroup.controllers"
		if _, err := os.Stat(hybrid); err == nil {
			testenv.NeedTool(t, "unshare", "mount")
			args = append([]string{"unshare", "--mount", "--propagation", "private", "sh", "-c",
				"mount --bind /dev/null " + hybrid + ` && exec "$@"`, "sh"}, args...)
		}
	}
	return exec.CommandContext(t.Context(), args[0], args[1:]...)
}

// runc and crun hand over to a holder that has no agent; the container waits for one.
func TestRuntimes(t *testing.T) {
	testenv.NeedGCC(t)
	for _, name := range []string{"runc", "crun"} {
		t.Run(name, func(t *testing.T) {
			testenv.NeedRuntime(t, name)
			c := config(t)
			serve(t, c)
			dir, root, id := bundle(t, c.Listener), t.TempDir(), "whittle-holder-"+name+"-"+strconv.Itoa(os.Getpid())
			log := &journal{}
			cmd := runtimeCommand(t, name, root, dir, id)
			cmd.Stdout, cmd.Stderr = log, log
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				// Nothing to delete if it ended as it should; the error says just that.
				_ = exec.Command(name, "--root", root, "delete", "--force", id).Run()
			})
			kill(agentProcess(t, c), unix.SIGKILL)
			_, list := listeners(t, c, 1)
			k := list[0]
			if k.Container != id || k.Metadata != "meta" || k.PID == 0 || k.UID != 0 || k.Exec || k.Annotations["of"] != "the bundle" {
				t.Errorf("got %+v", k)
			}
			answer(t, k.FD)
			if err := cmd.Wait(); err != nil {
				t.Errorf("%s: %v: %s", name, err, log)
			}
			if _, err := os.Stat(filepath.Join(dir, "rootfs/made")); err != nil {
				t.Error(err)
			}
			eventually(t, "its listener is dropped", func() bool {
				_, list := listeners(t, c, 0)
				return len(list) == 0
			})
		})
	}
}
