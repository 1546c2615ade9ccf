// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/whittle-sec/whittle/internal/api"
	"github.com/whittle-sec/whittle/internal/engine/oci"
	"github.com/whittle-sec/whittle/internal/image"
	"github.com/whittle-sec/whittle/internal/policy"
	"github.com/whittle-sec/whittle/internal/testenv"
	"github.com/whittle-sec/whittle/testbed/bedtest"
)

// launcher of containers of testdata/service.c, through one engine that knows whittle as its runtime. They share the network that
// the engine is in.
type launcher struct {
	engine string // what the agent calls it
	port   string
	start  func(t *testing.T, name, mode string) // the mode is what its label or annotation says; "" for none
	exec   func(t *testing.T, name string, command ...string) error
	signal func(t *testing.T, name, signal string)
	await  func(t *testing.T, name string)     // its end, which must be with 0, and remove it
	pid    func(t *testing.T, name string) int // of a process in its network; 0 where that is the host's
}

func serviceFiles(t *testing.T) []image.File {
	t.Helper()
	return append(bedtest.BusyboxFiles(t), program(t, compile(t, "service.c"), "service"))
}

func serviceArchive(t *testing.T) string {
	t.Helper()
	config := image.Config{Name: serviceImage}
	config.Entrypoint = []string{"/service"}
	return bedtest.Archive(t, config, serviceFiles(t))
}

// said is how people say what is to be done with a container.
func said(how, mode string) []string {
	if mode == "" {
		return nil
	}
	return []string{how, oci.LongModeKey + "=" + mode}
}

func dockerLauncher(t *testing.T, d *daemon, _ string) launcher {
	t.Helper()
	testenv.NeedDocker(t)
	bed := bedtest.UpDocker(t, map[string]any{
		"default-runtime": "whittle",
		"runtimes":        map[string]any{"whittle": map[string]any{"path": wrapper(t, d.socket, "runc")}},
	})
	run := func(t *testing.T, args ...string) string {
		t.Helper()
		out, err := bed.Run(t.Context(), args...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	run(t, "load", "--quiet", "--input", serviceArchive(t))
	l := launcher{engine: "docker", port: freePort(t)}
	l.start = func(t *testing.T, name, mode string) {
		args := append([]string{"run", "--detach", "--network", "host", "--name", name}, said("--label", mode)...)
		run(t, append(args, serviceImage, l.port)...)
	}
	l.exec = func(t *testing.T, name string, command ...string) error {
		_, err := bed.Run(t.Context(), append([]string{"exec", name}, command...)...)
		return err
	}
	l.signal = func(t *testing.T, name, signal string) { run(t, "kill", "--signal", signal, name) }
	l.await = func(t *testing.T, name string) {
		if code := run(t, "wait", name); code != "0" {
			t.Errorf("%s ended with %s", name, code)
		}
		run(t, "rm", name)
	}
	l.pid = func(t *testing.T, name string) int {
		return decimal(t, run(t, "inspect", "--format", "{{.State.Pid}}", name))
	}
	return l
}

func containerdLauncher(t *testing.T, d *daemon, _ string) launcher {
	t.Helper()
	testenv.NeedContainerd(t)
	bed := bedtest.UpContainerd(t)
	ctr := func(t *testing.T, args ...string) string {
		t.Helper()
		out, err := bed.Ctr(t.Context(), args...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	ctr(t, "image", "import", serviceArchive(t))
	runc := wrapper(t, d.socket, "runc")
	l := launcher{engine: "oci", port: freePort(t)}
	l.start = func(t *testing.T, name, mode string) {
		args := append(bed.RunArgs(name), "--detach", "--runc-binary", runc, "--seccomp", "--net-host", "--null-io")
		args = append(args, said("--annotation", mode)...)
		ctr(t, append(args, serviceImage, name, "/service", l.port)...)
	}
	execs := 0
	l.exec = func(t *testing.T, name string, command ...string) error {
		execs++
		_, err := bed.Ctr(t.Context(), append([]string{"task", "exec", "--exec-id", fmt.Sprint("e", execs), name}, command...)...)
		return err
	}
	l.signal = func(t *testing.T, name, signal string) { ctr(t, "task", "kill", "--signal", "SIG"+signal, name) }
	l.await = func(t *testing.T, name string) {
		eventually(t, name+" ends", func() (bool, string) {
			now := ctr(t, "task", "ls")
			return strings.Contains(now, "STOPPED"), now
		})
		ctr(t, "task", "rm", name) // which fails as the container did
		ctr(t, "container", "rm", name)
	}
	l.pid = func(t *testing.T, name string) int {
		for line := range strings.Lines(ctr(t, "task", "ls")) {
			if f := strings.Fields(line); len(f) > 1 && f[0] == name {
				return decimal(t, f[1])
			}
		}
		t.Fatal("there is no task " + name)
		return 0
	}
	return l
}

// bundleLauncher has no engine: a runtime's own commands, through the wrapper.
func bundleLauncher(t *testing.T, d *daemon, name string) launcher {
	t.Helper()
	testenv.NeedRuntime(t, "runc") // writes the bundle's config.json
	root, path := t.TempDir(), wrapper(t, d.socket, name)
	command := func(args ...string) *exec.Cmd {
		return runtimeCommand(path, append([]string{"--root", root}, args...)...)
	}
	run := func(args ...string) error {
		if out, err := command(args...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s %q: %w: %s", name, args, err, out)
		}
		return nil
	}
	l := launcher{engine: "oci", port: freePort(t)}
	ended, stderr := map[string]chan error{}, &output{}
	l.start = func(t *testing.T, name, mode string) {
		b := newBundle(t, nil, serviceFiles(t), func(s *specs.Spec) {
			s.Process.Args = []string{"/service", l.port}
			s.Linux.CgroupsPath = "/" + name
			s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchX86_64},
				Syscalls: []specs.LinuxSyscall{{Names: []string{"kexec_load"}, Action: specs.ActErrno}}}
			if mode != "" {
				s.Annotations = map[string]string{oci.LongModeKey: mode}
			}
		})
		cmd, end := command("run", "--bundle", b.dir, name), make(chan error, 1)
		cmd.Stderr = stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		go func() { end <- cmd.Wait() }()
		ended[name] = end
		t.Cleanup(func() { _ = run("delete", "--force", name) }) // only there when the test failed
		eventually(t, name+" was created", func() (bool, string) {
			return run("state", name) == nil, stderr.String()
		})
	}
	l.exec = func(_ *testing.T, name string, words ...string) error {
		return run(append([]string{"exec", name}, words...)...)
	}
	l.signal = func(t *testing.T, name, signal string) {
		if err := run("kill", name, signal); err != nil {
			t.Fatal(err)
		}
	}
	l.await = func(t *testing.T, name string) {
		select {
		case err := <-ended[name]:
			if err != nil {
				t.Errorf("%s ended with %v: %s", name, err, stderr)
			}
		case <-time.After(patience):
			t.Fatalf("%s does not end: %s", name, stderr)
		}
	}
	l.pid = func(*testing.T, string) int { return 0 }
	return l
}

func decimal(t *testing.T, text string) int {
	t.Helper()
	n, err := strconv.Atoi(strings.TrimSpace(text))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// name of a container that no other engine's has: it names a cgroup, too.
func (l launcher) name(what string) string { return containerID(what + "-" + l.port) }

// ask the service to make a call.
func (l launcher) ask(t *testing.T, name, command string) (r int, err error) {
	t.Helper()
	if inside := inNetwork(l.pid(t, name), func() { r, err = tryService(l.port, command) }); inside != nil {
		return 0, inside
	}
	return r, err
}

// inNetwork of a process, which is this one's when pid is 0, calls f. The thread goes back: it may be the main one, which never
// ends, and by which /proc tells what network this process has.
func inNetwork(pid int, f func()) error {
	if pid == 0 {
		f()
		return nil
	}
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer own.Close()
	other, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return err
	}
	defer other.Close()
	runtime.LockOSThread()
	if err := unix.Setns(int(other.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return err
	}
	f()
	if err := unix.Setns(int(own.Fd()), unix.CLONE_NEWNET); err != nil {
		return err // and the thread stays locked: it ends with the test
	}
	runtime.UnlockOSThread()
	return nil
}

// up starts a container and waits until it answers.
func (l launcher) up(t *testing.T, name, mode string) {
	t.Helper()
	l.start(t, name, mode)
	eventually(t, name+" answers", func() (bool, string) {
		r, err := l.ask(t, name, "w -")
		return err == nil && r == -1000, fmt.Sprint(r, err)
	})
}

// stop a container as engines do.
func (l launcher) stop(t *testing.T, d *daemon, name string) {
	t.Helper()
	l.signal(t, name, "TERM")
	l.await(t, name)
	d.forgotten()
}

// learn the service in one run; returned is the workload.
func (l launcher) learn(t *testing.T, d *daemon) string {
	t.Helper()
	name := l.name("learner")
	l.up(t, name, "")
	use := func() {
		t.Helper()
		for _, command := range []string{"m execve", "w socket"} {
			if _, err := l.ask(t, name, command); err != nil {
				t.Fatalf("%s: %v", command, err)
			}
		}
	}
	use()
	c := d.container(name, "serves", func(c api.Container) bool { return c.Phase == policy.Run && c.ByPhase["run"] > 0 })
	use()
	if c.Engine != l.engine || c.Late || c.Supervision != nil {
		t.Errorf("it was registered as %+v", c)
	}
	l.stop(t, d, name)
	balanced(t, d.policy(c.WorkloadID))
	return c.WorkloadID
}

// answer checks what the service gets in a container.
func (l launcher) answer(t *testing.T, name string, all answers) {
	t.Helper()
	for _, tt := range all {
		if got, err := l.ask(t, name, tt.command); err != nil || got != -int(tt.want) {
			t.Errorf("%s: %q returned %d (%v), want %v: %s", name, tt.command, got, err, tt.want, tt.why)
		}
	}
}

// TestEnginesSupervise: what an engine started once and started again is supervised from its start, whichever engine it is.
func TestEnginesSupervise(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, runtime string
		make          func(*testing.T, *daemon, string) launcher
	}{
		{"docker", "runc", dockerLauncher},
		{"containerd", "runc", containerdLauncher},
		{"bundle runc", "runc", bundleLauncher},
		{"bundle crun", "crun", bundleLauncher},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			testenv.NeedBPF(t)
			d := startAgent(t, "--podman", "")
			l := tt.make(t, d, tt.runtime)
			id := l.learn(t, d)
			l.asked(t, d, id, l.name("by-label"), string(api.ModeEnforce))
			d.whittle("policy", "mode", id, string(api.ModeEnforce))
			l.asked(t, d, id, l.name("by-mode"), "")
			l.leftAlone(t, d)
		})
	}
}

// asked for by a label or by the workload's mode, a container is enforced from its start.
func (l launcher) asked(t *testing.T, d *daemon, workload, name, mode string) {
	t.Helper()
	l.up(t, name, mode)
	c := d.supervised(name, api.ModeEnforce, policy.Run)
	if c.Supervision.How != "start" || c.WorkloadID != workload || c.Engine != l.engine || c.Late {
		t.Errorf("it is supervised as %+v, %+v; want workload %s", c, c.Supervision, workload)
	}
	for _, e := range d.events() {
		if e.Kind == "problem" || e.Kind == "refused" && strings.HasPrefix(e.Text, name+": ") {
			t.Errorf("while starting: %s", e.Text)
		}
	}
	l.answer(t, name, answers{
		{"m execve", unix.ENOENT, "the master does it while running"},
		{"w socket", 0, "the worker does it while running"},
		{"m bind", unix.EPERM, "it is for booting only"},
		{"w setuid", unix.EPERM, "the worker does it only while it is being born"},
		{"w unshare", unix.EPERM, "nobody does it"},
	})
	if err := l.exec(t, name, "/bin/busybox", "true"); err != nil {
		t.Errorf("exec: %v", err)
	}
	if err := l.exec(t, name, "/bin/busybox", "unshare", "--user", "/bin/busybox", "true"); err == nil {
		t.Error("exec may unshare")
	}
	l.journaled(t, d, name)
	if mode == "" { // once is enough: the agent takes its time
		d.asIntended(name)
	}
	l.stop(t, d, name)
}

// journaled is what was refused, with the phases before it.
func (l launcher) journaled(t *testing.T, d *daemon, name string) {
	t.Helper()
	eventually(t, "what was refused is in the journal", func() (bool, string) {
		var bind, exec, booted bool
		var seen []string
		for _, e := range d.events() {
			if !strings.HasPrefix(e.Text, name+": ") {
				continue
			}
			seen = append(seen, e.Text)
			bind = bind || e.Kind == "refused" && e.Call == "bind" && strings.Contains(e.Text, "whittle policy allow") && strings.Contains(e.Text, "lane service")
			exec = exec || e.Kind == "refused" && e.Call == "unshare" && strings.Contains(e.Text, "lane exec")
			booted = booted || e.Kind == "phase" && strings.Contains(e.Text, "boot -> run")
		}
		return bind && exec && booted, strings.Join(seen, "\n")
	})
}

// leftAlone is a container that asks for it, whatever its workload's mode is.
func (l launcher) leftAlone(t *testing.T, d *daemon) {
	t.Helper()
	name := l.name("off")
	l.up(t, name, string(api.ModeOff))
	if s := d.status(); len(s.Containers) > 0 {
		t.Errorf("the agent knows %+v", s.Containers)
	}
	l.answer(t, name, answers{{"m bind", unix.EBADF, "nothing is held"}, {"w setuid", 0, "nothing is held"}})
	l.stop(t, d, name)
}
