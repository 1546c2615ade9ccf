// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/image"
	"github.com/whittle-sec/whittle/internal/syscalls"
	"github.com/whittle-sec/whittle/internal/testenv"
)

// TestRootless: the containers of a user are observed by root's agent when the user is in the group whittle, exactly, and
// start all the same when not.
func TestRootless(t *testing.T) {
	testenv.NeedBPF(t)
	testenv.NeedPodman(t)
	testenv.NeedTool(t, "newuidmap", "newgidmap", "unshare", "nsenter", "setpriv")
	u := newUser(t)
	d := u.startAgent(t)
	archive := filepath.Join(u.dir, "image.tar")
	writeImage(t, archive, []image.File{
		image.Dir("proc", 0o555), image.Dir("sys", 0o555), image.Dir("dev", 0o755), image.Dir("etc", 0o755),
		program(t, compile(t, "markers.c", "-DMARKS={__NR_getpgrp,0},{__NR_getrusage,100000}"), "service"),
		program(t, compile(t, "markers.c", "-DMARKS={__NR_sysinfo,0},{__NR_getsid,0},{__NR_times,0}"), "probe"),
	})
	u.podman(t, "load", "--quiet", "--input", archive)
	for _, runtime := range []string{"runc", "crun"} {
		t.Run(runtime, func(t *testing.T) {
			testenv.NeedRuntime(t, runtime)
			flags := []string{"--runtime", runtime, "run", "--network", "none"}
			if runtime == "crun" { // which runc does not know, and without which crun wants a cgroup delegated to the user
				flags = append(flags, "--cgroups", "disabled")
			}
			rootless(t, u, d.as(t), append(flags, "--detach", "--name", "r-"+runtime))
			stranger(t, u, d.as(t), append(flags, "--rm", "--entrypoint", "/probe"))
		})
	}
}

// rootless learns from a container of the user's, and enforces what it learned.
func rootless(t *testing.T, u *user, d *daemon, run []string) {
	name := run[len(run)-1]
	start := func(flags ...string) {
		t.Helper()
		// The argument means nothing to the program, and makes it a workload of its own.
		u.podman(t, append(append(append([]string{}, run...), flags...), lanesImage, name)...)
	}
	start()
	c := d.container(name, "sleeps", func(c api.Container) bool { return c.Distinct == 2 })
	ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", c.PID))
	if err != nil || ns != fmt.Sprintf("mnt:[%d]", c.MountNS) || c.CgroupID != 0 {
		t.Errorf("it is known by cgroup %d and mount namespace %d; the kernel says %s (%v)", c.CgroupID, c.MountNS, ns, err)
	}
	// The image's name is in the user's own storage.
	if c.Late || c.Engine != "podman" || c.Workload.Image != lanesImage || !strings.HasPrefix(c.Workload.Digest, "sha256:") {
		t.Errorf("the hook registered %+v", c)
	}
	u.podman(t, "exec", name, "/probe")
	u.podman(t, "rm", "--force", "--time", "0", name)
	d.forgotten()
	p := d.policy(c.WorkloadID)
	balanced(t, p)
	if got, want := service(p, syscalls.X86_64), numbers(t, "getpgrp", "clock_nanosleep"); got != want {
		t.Errorf("the service's: %v, want %v", got.Names(syscalls.X86_64), want.Names(syscalls.X86_64))
	}
	if got, want := p.ABIs[syscalls.X86_64].Exec, numbers(t, "sysinfo", "getsid", "times", "exit_group"); got != want {
		t.Errorf("exec's: %v, want %v", got.Names(syscalls.X86_64), want.Names(syscalls.X86_64))
	}
	profile := filepath.Join(u.dir, name+".json")
	if err := os.WriteFile(profile, []byte(d.whittle("policy", "export", c.WorkloadID)), 0o644); err != nil {
		t.Fatal(err)
	}
	start("--security-opt", "seccomp="+profile)
	d.container(name, "is enforced", func(c api.Container) bool { return c.Mode == api.Enforced })
	u.podman(t, "exec", name, "/probe") // it does not mind what it is told
	d.container(name, "was refused calls", func(c api.Container) bool { return len(c.Refused) > 0 })
	u.podman(t, "rm", "--force", "--time", "0", name)
	d.forgotten()
}

// stranger runs a container while the user is not in the group.
func stranger(t *testing.T, u *user, d *daemon, run []string) {
	said := filepath.Join(u.dir, "home", "hook.log")
	before := len(d.events())
	out, err := u.command("--clear-groups", append(run, "--annotation", "run.oci.hooks.stderr="+said, lanesImage)...).CombinedOutput()
	if err != nil {
		t.Errorf("a container that nobody may observe does not start: %v: %s", err, out)
	}
	if events := d.events()[before:]; len(events) > 0 {
		t.Errorf("the agent took orders from a stranger: %+v", events)
	}
	if run[1] != "crun" { // runc tells what a hook said only when it failed
		return
	}
	text, err := os.ReadFile(said)
	if want := "not allowed to open " + d.socket + "; the container starts without"; err != nil || !strings.Contains(string(text), want) {
		t.Errorf("the hook said %q (%v), want %q", text, err, want)
	}
	if !strings.Contains(string(text), "join the group whittle") {
		t.Errorf("the hook said %q, without a hint", text)
	}
}

func writeImage(t *testing.T, name string, files []image.File) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	config := image.Config{Name: lanesImage}
	config.Entrypoint = []string{"/service"}
	if err := image.Write(f, config, files); err != nil {
		t.Fatal(err)
	}
}

// user that the machine does not know: its name, its group and the group whittle are in the files of a mount namespace.
type user struct {
	id, group, below int // below is the first of the 65536 ids that its containers have
	dir              string
	holder           *exec.Cmd // of the namespace
}

// newUser ends with the test, and with it all its processes, mounts and files.
func newUser(t *testing.T) *user {
	t.Helper()
	// Not t.TempDir: a socket's path has 107 bytes at most. The ids are of nobody: beyond what distributions give away.
	dir, err := os.MkdirTemp("", "rl")
	if err != nil {
		t.Fatal(err)
	}
	u := &user{id: 1_200_000_000 + os.Getpid(), group: 1_100_000_000 + os.Getpid(), below: 1_300_000_000 + os.Getpid()%4096<<16, dir: dir}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { u.end(t) })
	u.files(t)
	// The namespace ends with the last process in it; the holder ends with this test, whatever becomes of it.
	u.holder = exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c", `
for f in passwd group subuid subgid; do mount --bind "$0/etc/$f" "/etc/$f" || exit 1; done
# crun refuses a host that has controllers of both cgroup versions.
v2=/sys/fs/cgroup/unified/cgroup.controllers
if [ -n "$(cat $v2 2>/dev/null)" ]; then mount --bind /dev/null $v2 || exit 1; fi
echo; exec cat`, dir)
	var stderr strings.Builder
	u.holder.Stderr = &stderr
	if _, err := u.holder.StdinPipe(); err != nil { // Wait closes it
		t.Fatal(err)
	}
	out, err := u.holder.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := u.holder.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, 1)); err != nil {
		t.Fatalf("make a mount namespace: %v: %s", err, &stderr)
	}
	return u
}

func (u *user) files(t *testing.T) {
	t.Helper()
	for _, name := range []string{"etc", "home", "run", "hooks.d"} {
		if err := os.Mkdir(filepath.Join(u.dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, line := range map[string]string{
		"passwd": fmt.Sprintf("whittletest:x:%d:%[1]d::%s/home:/bin/sh\n", u.id, u.dir),
		"group":  fmt.Sprintf("whittletest:x:%d:\n%s:x:%d:whittletest\n", u.id, api.Group, u.group),
		"subuid": fmt.Sprintf("whittletest:%d:65536\n", u.below), "subgid": fmt.Sprintf("whittletest:%d:65536\n", u.below),
	} {
		text, err := os.ReadFile("/etc/" + name)
		if err != nil {
			t.Fatal(err)
		}
		kept := []string{line} // first, as the host may have a group whittle of its own
		for have := range strings.Lines(string(text)) {
			if !strings.HasPrefix(have, api.Group+":") {
				kept = append(kept, have)
			}
		}
		if err := os.WriteFile(filepath.Join(u.dir, "etc", name), []byte(strings.Join(kept, "")), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{
		// A user's Podman looks into no directory of hooks that it is not told of.
		"containers.conf": fmt.Sprintf("[containers]\nlog_driver = \"k8s-file\"\n[engine]\ncgroup_manager = \"cgroupfs\"\n"+
			"events_logger = \"file\"\nlock_type = \"file\"\nhooks_dir = [%q]\n", filepath.Join(u.dir, "hooks.d")),
		"storage.conf": "[storage]\ndriver = \"vfs\"\n",
	} {
		if err := os.WriteFile(filepath.Join(u.dir, "home", name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, mode := range map[string]fs.FileMode{"": 0o755, "home": 0o755, "run": 0o700} {
		path := filepath.Join(u.dir, name)
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if name != "" {
			if err := os.Chown(path, u.id, u.id); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// command of podman as the user; groups is setpriv's flag for the supplementary groups.
func (u *user) command(groups string, args ...string) *exec.Cmd {
	home, id := filepath.Join(u.dir, "home"), strconv.Itoa(u.id)
	cmd := exec.Command("nsenter", append([]string{
		"--target", strconv.Itoa(u.holder.Process.Pid), "--mount", "--", "setpriv", "--reuid", id, "--regid", id, groups,
		"env", "-i", "PATH=" + os.Getenv("PATH"), "USER=whittletest", "HOME=" + home, "TMPDIR=" + home,
		"XDG_RUNTIME_DIR=" + filepath.Join(u.dir, "run"), "CONTAINERS_CONF=" + filepath.Join(home, "containers.conf"),
		"CONTAINERS_STORAGE_CONF=" + filepath.Join(home, "storage.conf"), "podman",
	}, args...)...)
	cmd.WaitDelay = time.Second
	return cmd
}

// podman as a member of the group whittle.
func (u *user) podman(t *testing.T, args ...string) {
	t.Helper()
	if out, err := u.command("--groups="+strconv.Itoa(u.group), args...).CombinedOutput(); err != nil {
		t.Fatalf("rootless podman %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// startAgent as root, where the group whittle is known.
func (u *user) startAgent(t *testing.T) *daemon {
	t.Helper()
	wrapper := filepath.Join(u.dir, "whittle")
	script := fmt.Sprintf("#!/bin/sh\nexec nsenter --target %d --mount -- %s \"$@\"\n", u.holder.Process.Pid, binary(t))
	if err := os.WriteFile(wrapper, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	d := &daemon{t: t, bin: wrapper, state: filepath.Join(u.dir, "state"), socket: filepath.Join(u.dir, "sock")}
	d.start("--podman", "", "--hooks-dir", filepath.Join(u.dir, "hooks.d"))
	return d
}

// end every process of the user and of its containers, then the namespace.
func (u *user) end(t *testing.T) {
	eventually(t, "the user's processes have ended", func() (bool, string) {
		pids := u.processes(t)
		for _, pid := range pids {
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && err != unix.ESRCH {
				t.Error(err)
			}
		}
		return len(pids) == 0, fmt.Sprint(pids)
	})
	if u.holder == nil || u.holder.Process == nil {
		return
	}
	if err := u.holder.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = u.holder.Wait() // killed
}

func (u *user) processes(t *testing.T) (pids []int) {
	t.Helper()
	names, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		text, err := os.ReadFile(name + "/status")
		if err != nil {
			continue // gone meanwhile
		}
		_, ids, _ := strings.Cut(string(text), "\nUid:")
		var uid int
		if _, err := fmt.Sscan(ids, &uid); err != nil || strings.Contains(string(text), "\nState:\tZ") {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(name)); err == nil && (uid == u.id || uid >= u.below && uid < u.below+1<<16) {
			pids = append(pids, pid)
		}
	}
	return pids
}
